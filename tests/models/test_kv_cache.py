import jax.numpy as jnp
import numpy as np

from llama2_jax.models.config import PRESETS
from llama2_jax.models.kv_cache import empty_cache, take_rows


def test_an_empty_cache_has_no_tokens():
    config = PRESETS["tiny"]
    cache = empty_cache(config, batch=3, slots=5)
    assert len(cache.keys) == len(cache.values) == config.layers
    assert cache.keys[0].shape == (3, config.kv_heads, config.head_dim, 5)
    assert cache.values[0].shape == (3, config.kv_heads, 5, config.head_dim)
    assert (np.asarray(cache.positions) == -1).all() and cache.index == 0


def test_rows_are_taken_in_any_order_and_many_times():
    cache = empty_cache(PRESETS["tiny"], batch=2, slots=1).replace(positions=jnp.array([[7], [9]]), index=jnp.int32(1))
    repeated = take_rows(cache, jnp.repeat(jnp.arange(2), 3))
    assert repeated.positions[:, 0].tolist() == [7, 7, 7, 9, 9, 9]
    assert repeated.keys[0].shape[0] == repeated.values[-1].shape[0] == 6
    assert repeated.index == 1
    assert take_rows(cache, jnp.array([1, 1, 0])).positions[:, 0].tolist() == [9, 9, 7]
