"""The memory that decoding needs on a TPU slice that is not attached, by compiling for it.

Needs libtpu from the package index; skipped if it is not installed.
"""

import dataclasses
import importlib.util
import os

import pytest

from llama2_jax.inference.abstract import GenerationShapes, abstract_weights, compile_decode
from llama2_jax.models.config import PRESETS
from llama2_jax.pipeline.device_programs import abstract_model
from llama2_jax.sharding.mesh import make_mesh

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="compiling for a TPU needs libtpu"),
]


@pytest.mark.parametrize("kv_heads", [8, 2])
def test_the_cache_is_stored_once(kv_heads):
    """There is no copy in another layout, nor one with heads padded to the width of the hardware."""
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5p:2x2x1").devices
    model = dataclasses.replace(
        PRESETS["7b"], vocab_size=1024, dim=1024, layers=2, heads=8, kv_heads=kv_heads, ffn_hidden=1024, max_length=2048
    )
    mesh = make_mesh(1, 4, 1, devices=devices)
    weights = abstract_weights(model, abstract_model("policy", model, mesh).params)
    program = compile_decode(model, weights, GenerationShapes(32, 32, 1024, 1024), top_p=1.0)
    one_layer = 2 * 8 * kv_heads * 128 * 2048 * 2  # keys and values of 8 rows in bfloat16
    assert program.memory_analysis().temp_size_in_bytes < one_layer
