import dataclasses
import math
import re

import jax
import pytest

from llama2_jax.models.config import PRESETS, ModelConfig, ffn_hidden, parameter_count
from llama2_jax.models.llama import init_language_model


@pytest.mark.parametrize(
    ("scale", "parameters"),
    # PAPER.md, section A: exact counts with untied embeddings.
    [("7b", 6_738_415_616), ("13b", 13_015_864_320), ("34b", 33_743_970_304), ("70b", 68_976_648_192)],
)
def test_the_papers_sizes_have_the_papers_parameters(scale, parameters):
    abstract = jax.eval_shape(lambda key: init_language_model(PRESETS[scale], key), jax.random.key(0))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract)) == parameters
    assert parameter_count(PRESETS[scale]) == parameters


@pytest.mark.parametrize("scale", PRESETS)
def test_every_preset_counts_its_parameters(scale):
    abstract = jax.eval_shape(lambda key: init_language_model(PRESETS[scale], key), jax.random.key(0))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract)) == parameter_count(PRESETS[scale])


@pytest.mark.parametrize(
    ("dim", "multiple_of", "multiplier", "width"),
    [(4096, 256, None, 11008), (5120, 256, None, 13824), (8192, 256, 1.0, 22016), (8192, 4096, 1.3, 28672)],
)
def test_feed_forward_width_follows_metas_rule(dim, multiple_of, multiplier, width):
    assert ffn_hidden(dim, multiple_of, multiplier) == width


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "model.dim=128"),
        ({"kv_heads": 3}, "model.kv_heads=3"),
        ({"heads": 128, "kv_heads": 2}, "odd"),
        ({"layers": 0}, "model.layers is 0"),
        ({"vocab_size": 768.0}, "model.vocab_size is 768.0"),
        ({"compute_dtype": "float64"}, "model.compute_dtype is 'float64'"),
        ({"remat": "some"}, "model.remat"),
        ({"attention": "flash"}, "model.attention"),
        ({"logits_chunk": -1}, "model.logits_chunk is -1"),
        ({"generation_rows": 0}, "model.generation_rows is 0"),
        ({"scoring_tokens": 0}, "model.scoring_tokens is 0"),
        ({"logits_chunk": 0.5}, "model.logits_chunk is 0.5"),
        ({"layers": True}, "model.layers is True"),
        *(
            ({name: value}, f"model.{name} is {re.escape(repr(value))}; it must be a finite number above 0")
            for name in ("norm_eps", "rope_theta")
            for value in (0, -1, -5.0, math.nan, math.inf, True, None, "1e-5", [1e-5])
        ),
    ],
)
def test_sizes_that_do_not_fit_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PRESETS["tiny"], **change)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, 256), "dim is None; it must be a whole number"),
        (("48", 256), "dim is '48'"),
        ((48, 0), "multiple_of is 0; it must be a whole number of at least 1"),
        ((48, -8), "multiple_of is -8"),
        ((48, None), "multiple_of is None"),
        ((48, 8, math.inf), "ffn_dim_multiplier is inf; it must be a finite number above 0"),
        ((48, 8, math.nan), "ffn_dim_multiplier is nan"),
        ((48, 8, "1.3"), r"ffn_dim_multiplier is '1\.3'"),
        ((48, 8, 0), "ffn_dim_multiplier is 0"),
    ],
)
def test_a_width_of_numbers_that_have_none_is_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        ffn_hidden(*arguments)


def test_presets_run_on_every_platform():
    """A model.json carries its preset's backend to wherever it is loaded."""
    assert {config.attention for config in PRESETS.values()} == {"auto"}


def test_a_base_that_is_a_large_whole_number_is_a_float():
    assert type(dataclasses.replace(PRESETS["tiny"], rope_theta=10**10).rope_theta) is float


def test_a_config_is_hashable_and_equal_by_value():
    assert hash(dataclasses.replace(PRESETS["tiny"])) == hash(PRESETS["tiny"])
    assert dataclasses.replace(PRESETS["tiny"]) == PRESETS["tiny"]
    assert isinstance(PRESETS["tiny"], ModelConfig)
