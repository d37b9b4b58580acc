"""The work of instructions of TPU and GPU programs, which do not run here, against counts by hand."""

import pytest

from llama2_jax.sizing.program_costs import count_program
from llama2_jax.sizing.program_text import parse_program


def costs(*lines, called=""):
    body = "\n".join(f"  {line}" for line in lines)
    return count_program(
        parse_program(f"HloModule m, num_partitions=8\n{called}\nENTRY %main () -> () {{\n{body}\n}}\n")
    )


def parameters(*types):
    return [f"%p{number} = {array_type} parameter({number})" for number, array_type in enumerate(types)]


@pytest.mark.parametrize(
    ("left", "right", "out", "how", "flops"),
    [
        ("bf16[256,512]", "bf16[512,128]", "bf16[256,128]", "dim_labels=bf_io->bf", 2 * 256 * 512 * 128),
        ("f32[256,512]", "f32[128,512]", "f32[256,128]", "dim_labels=bf_oi->bf", 2 * 256 * 512 * 128),
        ("bf16[2,128,64]", "bf16[2,64,256]", "f32[2,128,256]",
         "window={size=2 stride=1 pad=0_1 lhs_dilate=2}, dim_labels=0bf_0io->0bf", 2 * 2 * 128 * 64 * 256),
        ("bf16[8,128,64]", "bf16[8,64,256]", "f32[8,128,256]",
         "window={size=8 stride=7 pad=0_7 lhs_dilate=8}, dim_labels=0bf_0io->0bf", 2 * 8 * 128 * 64 * 256),
        ("bf16[2,64,128]", "bf16[2,64,256]", "bf16[128,256,1]",
         "window={size=2}, dim_labels=0fb_0io->bf0", 2 * 2 * 64 * 128 * 256),
    ],
    ids=["a product", "transposed", "a batch of 2", "a batch of 8", "contracted over two dimensions"],
)  # fmt: skip
def test_a_product_written_as_a_convolution(left, right, out, how, flops):
    layout = {2: "{1,0:T(8,128)}", 3: "{2,1,0:T(8,128)(2,1)}"}
    typed = [f"{array_type}{layout[array_type.count(',') + 1]}" for array_type in (left, right, out)]
    found = costs(*parameters(*typed[:2]), f"ROOT %c = {typed[2]} convolution(%p0, %p1), {how}")
    assert found.flops == flops


@pytest.mark.parametrize(("name", "flops"), [("bkgqd,bkds->bkgqs/dot_general", 2 * 8 * 128 * 64), ("reduce_sum", 0)])
def test_a_product_written_as_a_multiplication_and_a_sum(name, flops):
    """The TPU compiler writes the product of one query with the keys of a row this way."""
    called = """
%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}
%fused (q: f32[8,128], k: f32[8,128,64]) -> f32[8,64] {
  %q = f32[8,128]{1,0} parameter(0)
  %k = f32[8,128,64]{2,1,0} parameter(1)
  %wide = f32[8,128,64]{2,1,0} broadcast(%q), dimensions={0,1}
  %product = f32[8,128,64]{2,1,0} multiply(%wide, %k)
  %zero = f32[] constant(0)
  ROOT %r = f32[8,64]{1,0} reduce(%product, %zero), dimensions={1}, to_apply=%add, metadata={op_name="jit(f)/NAME"}
}""".replace("NAME", name)
    found = costs(
        *parameters("f32[8,128]{1,0}", "f32[8,128,64]{2,1,0}"),
        "ROOT %f = f32[8,64]{1,0} fusion(%p0, %p1), kind=kLoop, calls=%fused",
        called=called,
    )
    assert found.flops == flops
    assert found.memory_bytes == 4 * (8 * 128 + 8 * 128 * 64 + 8 * 64)


def test_a_product_of_cublas():
    found = costs(
        *parameters("bf16[64,32]{1,0}", "bf16[32,16]{1,0}"),
        'ROOT %g = (bf16[64,16]{1,0}, s8[4096]{0}) custom-call(%p0, %p1), custom_call_target="__cublas$lt$matmul", '
        'backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],'
        '"rhs_contracting_dimensions":["0"]}}}',
    )
    assert found.flops == 2 * 64 * 32 * 16 and not found.uncounted


@pytest.mark.parametrize(
    ("name", "results", "products"),
    [
        ("splash_mha_fwd_segmented_residuals.1", "(bf16[2,4,1024,128], f32[2,4,1024,128])", 2),
        ("splash_mha_dq_segmented_no_residuals.1", "(f32[2,512,128], bf16[2,4,1024,128])", 3),
        ("splash_mha_dkv_segmented_no_residuals.1", "(f32[2,512,128], bf16[2,4,1024,128], bf16[2,4,1024,128])", 4),
        ("splash_mha_dkv_segmented_no_residuals.2",
         "(f32[2,512,128], bf16[2,2,4,1024,128], bf16[2,4,1024,128], bf16[2,4,1024,128])", 5),
    ],
    ids=["forward", "queries' gradient", "keys' and values' gradients", "all gradients"],
)  # fmt: skip
def test_attention_kernels_of_tpus_count_the_causal_half(name, results, products):
    arrays = ["bf16[2,4,1024,128]{3,2,1,0:T(8,128)(2,1)}"] * 3
    found = costs(
        *parameters("s8[1,2,2]{2,1,0}", *arrays),
        f'ROOT %{name} = {results} custom-call(%p0, %p1, %p2, %p3), custom_call_target="tpu_custom_call"',
    )
    assert found.flops == products * 2 * (2 * 4 * 1024 * 1024 * 128) / 2 and not found.uncounted


@pytest.mark.parametrize(("target", "products"), [("__cudnn$fmhaSoftmax", 2), ("__cudnn$fmhaSoftmaxBackward", 5)])
def test_attention_kernels_of_gpus_count_the_causal_half(target, products):
    arrays = ["bf16[2,1024,4,128]{3,2,1,0}"] * 3
    found = costs(
        *parameters(*arrays),
        f'ROOT %a = (bf16[2,4,1024,128]) custom-call(%p0, %p1, %p2), custom_call_target="{target}", '
        'backend_config={"cudnn_fmha_backend_config":{"mask_type":"CAUSAL"}}',
    )
    assert found.flops == products * 2 * (2 * 4 * 1024 * 1024 * 128) / 2


def test_unknown_kernels_are_named():
    found = costs(
        *parameters("f32[8,128]{1,0}"),
        '%a = f32[8,128]{1,0} custom-call(%p0), custom_call_target="tpu_custom_call"',
        'ROOT %b = f32[8,128]{1,0} custom-call(%a), custom_call_target="AllocateBuffer"',
    )
    assert found.uncounted == {"tpu_custom_call": 1}


def test_a_loops_length_is_read_from_its_condition():
    called = """
%condition (state: (s32[], f32[4,4])) -> pred[] {
  %limit = s32[]{:T(128)} constant(12)
  %state = (s32[]{:T(128)}, f32[4,4]{1,0:T(8,128)}) parameter(0)
  %step = s32[]{:T(128)} get-tuple-element(%state), index=0
  ROOT %lt = pred[]{:T(512)} compare(%step, %limit), direction=LT
}
%body (state: (s32[], f32[4,4])) -> (s32[], f32[4,4]) {
  %state = (s32[]{:T(128)}, f32[4,4]{1,0:T(8,128)}) parameter(0)
  %step = s32[]{:T(128)} get-tuple-element(%state), index=0
  %x = f32[4,4]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %y = f32[4,4]{1,0:T(8,128)} convolution(%x, %x), dim_labels=bf_io->bf
  ROOT %next = (s32[]{:T(128)}, f32[4,4]{1,0:T(8,128)}) tuple(%step, %y)
}
"""
    found = costs(
        *parameters("(s32[]{:T(128)}, f32[4,4]{1,0:T(8,128)})"),
        "ROOT %loop = (s32[]{:T(128)}, f32[4,4]{1,0:T(8,128)}) while(%p0), condition=%condition, body=%body",
        called=called,
    )
    assert found.flops == 12 * 2 * 4 * 4 * 4 and found.guessed_loops == 0


def test_a_reduce_scatter_on_tpus_is_not_counted_as_an_all_reduce():
    called = """
%all-reduce-scatter.1 (input: bf16[64,32]) -> bf16[8,32] {
  %input = bf16[64,32]{1,0} parameter(0)
  %sum = bf16[64,32]{1,0} all-reduce(%input), channel_id=1, replica_groups=[1,8]<=[8], to_apply=%add
  ROOT %part = bf16[8,32]{1,0} dynamic-slice(%sum), dynamic_slice_sizes={8,32}
}
"""
    found = costs(
        *parameters("bf16[64,32]{1,0}"),
        "ROOT %f = bf16[8,32]{1,0} fusion(%p0), kind=kCustom, calls=%all-reduce-scatter.1",
        called=called,
    )
    assert found.collective_bytes == {"reduce-scatter": 7 / 8 * 64 * 32 * 2}


def test_arrays_on_the_chip_are_not_read_from_the_main_memory():
    moved = costs(
        *parameters("f32[64,32]{1,0:T(8,128)}"),
        "%copy-start = (f32[64,32]{1,0:T(8,128)S(1)}, f32[64,32]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%p0)",
        "%copy-done = f32[64,32]{1,0:T(8,128)S(1)} copy-done(%copy-start)",
        "ROOT %add = f32[64,32]{1,0:T(8,128)} add(%copy-done, %copy-done)",
    )
    assert moved.memory_bytes == 2 * 64 * 32 * 4, "read once by the copy, written once by the sum"


def test_an_update_in_a_fusion_writes_only_what_it_changes():
    called = """
%fused (cache: f32[128,64], row: f32[1,64], at: s32[]) -> f32[128,64] {
  %cache = f32[128,64]{1,0} parameter(0)
  %row = f32[1,64]{1,0} parameter(1)
  %at = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %update = f32[128,64]{1,0} dynamic-update-slice(%cache, %row, %at, %zero)
}
"""
    found = costs(
        *parameters("f32[128,64]{1,0}", "f32[1,64]{1,0}", "s32[]"),
        "ROOT %f = f32[128,64]{1,0} fusion(%p0, %p1, %p2), kind=kLoop, calls=%fused",
        called=called,
    )
    assert found.memory_bytes == 2 * 64 * 4 + 4
