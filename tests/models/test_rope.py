import jax
import jax.numpy as jnp
import numpy as np

from llama2_jax.models.rope import rotate, rotation
from tests.models.reference_llama import rotate as reference_rotate


def test_adjacent_pairs_rotate_as_complex_numbers():
    x = jax.random.normal(jax.random.key(0), (1, 50, 3, 8))
    rotated = rotate(x, rotation(jnp.arange(50)[None], 8, 10000.0))
    expected = reference_rotate(np.asarray(x[0], np.float64), np.arange(50), 10000.0)
    # Angles up to 50 rad in float32 are accurate to 4e-6.
    np.testing.assert_allclose(rotated[0], expected, atol=2e-5)


def test_scores_depend_on_the_distance_alone():
    q, k = jax.random.normal(jax.random.key(1), (2, 1, 1, 1, 16))

    def score(query_position, key_position):
        rotated_q = rotate(q, rotation(jnp.array([[query_position]]), 16, 10000.0))
        rotated_k = rotate(k, rotation(jnp.array([[key_position]]), 16, 10000.0))
        return float(jnp.sum(rotated_q * rotated_k))

    # 1000 rad in float32 are accurate to 6e-5, and a score sums 16 such products.
    for distance in (0, 3, 40):
        np.testing.assert_allclose(score(1000 + distance, 1000), score(distance, 0), atol=2e-3)
    assert abs(score(3, 0) - score(40, 0)) > 0.1


def test_position_zero_changes_nothing_and_lengths_are_kept():
    x = jax.random.normal(jax.random.key(2), (2, 7, 2, 8))
    np.testing.assert_array_equal(rotate(x, rotation(jnp.zeros((2, 7), jnp.int32), 8, 10000.0)), x)
    rotated = rotate(x, rotation(jnp.tile(jnp.arange(7), (2, 1)), 8, 10000.0))
    np.testing.assert_allclose(jnp.linalg.norm(rotated, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-6)


def test_bfloat16_is_rotated_in_float32():
    x = jax.random.normal(jax.random.key(3), (1, 200, 1, 8)).astype(jnp.bfloat16)
    rope = rotation(jnp.arange(200)[None], 8, 10000.0)
    assert rotate(x, rope).dtype == jnp.bfloat16
    # One rounding to 8 bits of mantissa, of values up to about 4.
    np.testing.assert_allclose(rotate(x, rope).astype(np.float32), rotate(x.astype(jnp.float32), rope), atol=0.02)
