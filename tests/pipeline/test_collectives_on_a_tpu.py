"""The same for a TPU slice that is not here, by compiling for it: gathers in bfloat16, sums where they arise.

Needs libtpu from the package index beside jax; skipped where it is not installed.
"""

import dataclasses
import importlib.util
import os
from collections import Counter

import numpy as np
import pytest

from llama2_jax.sharding.mesh import make_mesh
from tests.hlo import by_body, collectives, shapes_in
from tests.pipeline import test_collectives
from tests.pipeline.test_collectives import LAYERS, MODEL, TOKENS, lowered

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="compiling for a TPU needs libtpu"),
]

# Wide enough that nothing is so small that it is sent otherwise.
DIM, FFN, VOCAB, ROWS, LENGTH = 512, 1024, 2048, 16, 128
TPU_MODEL = dataclasses.replace(
    MODEL, dim=DIM, heads=4, kv_heads=4, ffn_hidden=FFN, vocab_size=VOCAB, max_length=LENGTH, compute_dtype="bfloat16"
)


@pytest.fixture(scope="module")
def devices():
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    from jax.experimental import topologies

    return topologies.get_topology_desc(platform="tpu", topology_name="v5p:2x2x1").devices


@pytest.fixture
def compiled(devices, tmp_path, monkeypatch):
    module, _, step_on = test_collectives.STAGES["language model"]
    batch = {name: np.zeros((ROWS, LENGTH), np.int32) for name in (*TOKENS, "loss_mask")}
    monkeypatch.setitem(test_collectives.STAGES, "language model", (module, batch, step_on))

    def compile_on(*shape):
        program = lowered("language model", make_mesh(*shape, devices=devices), TPU_MODEL)
        # The program's own text can not be read where libtpu is newer than jaxlib.
        program.compile(compiler_options={"xla_dump_to": str(tmp_path)})
        text = next(tmp_path.glob("*after_optimizations.txt")).read_text()
        return text, collectives(text)

    return compile_on


def test_fsdp_gathers_in_the_compute_dtype_once_each_way(compiled):
    text, found = compiled(1, 4, 1)
    assert not shapes_in(text) & {(LAYERS, DIM, DIM), (LAYERS, DIM, FFN), (LAYERS, FFN, DIM)}
    weights = Counter({(DIM, DIM): 4, (DIM, FFN): 3})
    assert by_body(found, "all-gather") == [weights, weights]
    gathers = [one for one in found if one.kind == "all-gather" and len(one.shapes[0]) == 2]
    assert {dtype for one in gathers for dtype, _ in one.arrays if dtype != "s32"} == {"bf16"}
    # libtpu writes a reduce-scatter, also one asked for by name, as a sum whose part is taken; only the part is kept,
    # as the first check says.
    sums = sum(by_body(found, "all-reduce") + by_body(found, "reduce-scatter"), Counter())
    assert {shape: count for shape, count in sums.items() if len(shape) == 2} == weights
    assert not any(one.in_loop for one in found if one.kind in ("all-to-all", "collective-permute"))


def test_tensor_parallel_layers_sum_activations_twice_each_way(compiled):
    text, found = compiled(1, 1, 4)
    assert (ROWS, LENGTH, VOCAB) not in shapes_in(text)
    forward, backward = sorted(by_body(found, "all-reduce"), key=lambda body: body.total())
    activations = tuple(sorted((ROWS, LENGTH, DIM)))
    # After the attention and the feed-forward; back, what q, k, v and what gate, up send, and the first one again.
    assert forward == {activations: 2} and backward == {activations: 2 + 1}
