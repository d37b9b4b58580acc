"""The work of compiled programs against counts by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from llama2_jax.sharding.mesh import make_mesh
from llama2_jax.sizing.program_costs import collective_group, count_program
from llama2_jax.sizing.program_text import parse_program


def costs(function, *arguments, loop_trips=1):
    return count_program(parse_program(jax.jit(function).lower(*arguments).compile().as_text()), loop_trips)


def abstract(*shape, spec=None, mesh=None):
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec) if mesh else None)


def products(x, matrices):
    """x @ matrix for each of the stacked matrices, by a scan."""
    return jax.lax.scan(lambda x, matrix: (jnp.sin(x @ matrix), None), x, matrices)[0]


def test_a_scan_counts_as_often_as_it_runs():
    assert costs(products, abstract(16, 32), abstract(7, 32, 32)).flops == 7 * 2 * 16 * 32 * 32


def test_a_scan_in_a_scan_counts_as_the_product():
    def program(x, matrices):
        return jax.lax.scan(lambda x, _: (products(x, matrices), None), x, None, length=5)[0]

    assert costs(program, abstract(16, 32), abstract(7, 32, 32)).flops == 5 * 7 * 2 * 16 * 32 * 32


def test_backward_passes_and_their_recomputation_count_too():
    def loss(matrices, x, remat):
        def body(x, matrix):
            return jnp.sin(jnp.sin(x @ matrix) @ matrix), None

        body = jax.checkpoint(body, policy=jax.checkpoint_policies.nothing_saveable) if remat else body
        return jnp.sum(jax.lax.scan(body, x, matrices)[0])

    product, shapes = 2 * 16 * 32 * 32, (abstract(7, 32, 32), abstract(16, 32))
    # Two products forward, and for each of them two backward.
    assert costs(lambda *given: jax.grad(loss, (0, 1))(*given, False), *shapes).flops == 7 * 6 * product
    # Both of them once more: the second one's result is an argument of the sine's gradient.
    assert costs(lambda *given: jax.grad(loss, (0, 1))(*given, True), *shapes).flops == 7 * 8 * product


def until_all_are_large(x, matrix):
    """A loop whose length is not known from the program, as in decoding."""

    def unfinished(state):
        step, x = state
        return (step < 100) & ~jnp.all(x > 5)

    return jax.lax.while_loop(unfinished, lambda state: (state[0] + 1, state[1] @ matrix), (0, x))[1]


def test_a_loop_of_unknown_length_counts_loop_trips_times():
    product, shapes = 2 * 16 * 32 * 32, (abstract(16, 32), abstract(32, 32))
    found = costs(until_all_are_large, *shapes, loop_trips=11)
    assert found.flops == 11 * product and found.guessed_loops == 1
    assert costs(products, abstract(16, 32), abstract(7, 32, 32), loop_trips=11).guessed_loops == 0


def test_an_unknown_loop_in_an_unknown_loop_is_not_multiplied_twice():
    def program(x, matrix):
        return jax.lax.while_loop(
            lambda x: jnp.any(x < 9), lambda x: until_all_are_large(x, matrix), x
        )  # fmt: skip

    found = costs(program, abstract(16, 32), abstract(32, 32), loop_trips=11)
    assert found.flops == 11 * 2 * 16 * 32 * 32 and found.guessed_loops == 2


def test_a_gather_in_a_scan_is_sent_as_often_as_the_scan_runs():
    mesh = make_mesh(1, 8, 1)
    rows, columns = PartitionSpec("fsdp"), PartitionSpec(None, "fsdp")

    def program(x, matrices):
        def body(x, matrix):
            matrix = jax.lax.with_sharding_constraint(matrix, NamedSharding(mesh, PartitionSpec()))
            return jax.lax.with_sharding_constraint(jnp.sin(x @ matrix), NamedSharding(mesh, rows)), None

        return jax.lax.scan(body, x, matrices)[0]

    found = costs(program, abstract(16, 32, spec=rows, mesh=mesh), abstract(7, 32, 32, spec=columns, mesh=mesh))
    # Each device passes on seven eighths of each matrix.
    assert found.collective_bytes == {"all-gather": 7 * 7 * 32 * 32 * 4 / 8}
    assert {collective.group for collective in found.collectives} == {tuple(range(8))}
    assert found.flops == 7 * 2 * 2 * 32 * 32, "of 16 rows a device computes 2"


def test_replicated_work_counts_on_each_device():
    mesh = make_mesh(1, 8, 1)
    everywhere = {"spec": PartitionSpec(), "mesh": mesh}
    found = costs(products, abstract(16, 32, **everywhere), abstract(7, 32, 32, **everywhere))
    assert found.flops == 7 * 2 * 16 * 32 * 32


def test_a_gradient_summed_over_devices_is_sent_twice():
    mesh = make_mesh(2, 4, 1)
    x = abstract(16, 32, spec=PartitionSpec(("data", "fsdp")), mesh=mesh)
    matrix = abstract(32, 32, spec=PartitionSpec(), mesh=mesh)
    found = costs(jax.grad(lambda matrix, x: jnp.sum(jnp.sin(x @ matrix))), matrix, x)
    assert found.collective_bytes == {"all-reduce": 2 * 7 / 8 * 32 * 32 * 4}


def test_a_loop_reads_its_slice_and_not_the_stack():
    seven, fourteen = (costs(products, abstract(16, 512), abstract(n, 512, 512)).memory_bytes for n in (7, 14))
    matrix = 512 * 512 * 4
    # Each round reads a matrix, which may be copied out of the stack first; never all matrices.
    assert 7 * matrix <= fourteen - seven <= 7 * 3.2 * matrix


@pytest.mark.parametrize("sliced", [False, True])
def test_a_value_that_an_inner_fusion_only_reshapes_is_read_by_its_user(sliced):
    """TPU programs have weights reshaped by a fusion within that of the product."""
    used = "f32[2,8]{1,0} slice(%w), slice={[0:2], [0:8]}" if sliced else "f32[2,8]{1,0} dot(%x, %w)"
    text = (
        "HloModule m\n"
        "%reshaped (p: f32[64]) -> f32[8,8] {\n"
        "  %p = f32[64]{0} parameter(0)\n"
        "  ROOT %b = f32[8,8]{1,0} bitcast(%p)\n"
        "}\n"
        "%product (a: f32[2,8], q: f32[64]) -> f32[2,8] {\n"
        "  %x = f32[2,8]{1,0} parameter(0)\n"
        "  %q = f32[64]{0} parameter(1)\n"
        "  %w = f32[8,8]{1,0} fusion(%q), kind=kLoop, calls=%reshaped\n"
        f"  ROOT %r = {used}, lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}\n"
        "}\n"
        "ENTRY %main (a: f32[2,8], q: f32[64]) -> f32[2,8] {\n"
        "  %a = f32[2,8]{1,0} parameter(0)\n"
        "  %q = f32[64]{0} parameter(1)\n"
        "  ROOT %out = f32[2,8]{1,0} fusion(%a, %q), kind=kOutput, calls=%product\n"
        "}\n"
    )
    x, weights = 0 if sliced else 2 * 8 * 4, 2 * 8 * 4 if sliced else 64 * 4
    assert count_program(parse_program(text)).memory_bytes == x + weights + 2 * 8 * 4


def test_the_memory_of_a_product_is_its_operands_and_its_result():
    found = costs(jnp.matmul, abstract(128, 256), abstract(256, 64))
    assert found.memory_bytes == 4 * (128 * 256 + 256 * 64 + 128 * 64)


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("replica_groups={{0,2,4},{1,3,5}}", (0, 2, 4)),
        ("replica_groups=[2,4]<=[8]", (0, 1, 2, 3)),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", (0, 2, 4, 6)),
        ("replica_groups=mesh['a'=4,'b'=2] {'a'}", (0, 2, 4, 6)),
        ("replica_groups=mesh['a'=4,'b'=2] {'a','b'}", tuple(range(8))),
        ("replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}", (0, 2, 4, 6)),
        ("source_target_pairs={{3,5},{5,3}}", (3, 5)),
        ("replica_groups={}", tuple(range(8))),
    ],
)  # fmt: skip
def test_all_notations_of_groups_are_read(text, group):
    program = parse_program(
        "HloModule m, num_partitions=8\n"
        "ENTRY %main (p: f32[4]) -> f32[4] {\n"
        "  %p = f32[4]{0} parameter(0)\n"
        f"  ROOT %r = f32[4]{{0}} all-reduce(%p), channel_id=1, {text}, use_global_device_ids=true\n"
        "}\n"
    )
    assert collective_group(program.computations["main"].instructions["r"], program.devices) == group


def test_an_unknown_notation_of_groups_raises():
    lines = "%p = f32[] parameter(0)", "ROOT %r = f32[] all-reduce(%p), replica_groups=x7"
    text = "ENTRY %m (p: f32[]) -> f32[] {\n" + "".join(f"  {line}\n" for line in lines) + "}"
    with pytest.raises(ValueError, match="groups of r have an unknown notation: x7"):
        count_program(parse_program(text))


def test_an_instruction_may_have_line_breaks_and_lines_that_begin_with_a_brace():
    """The metadata of TPU kernels have them; the instructions after them count too."""
    text = (
        "HloModule m\n"
        "ENTRY %main (p: f32[4,4]) -> f32[4,4] {\n"
        "  %p = f32[4,4]{1,0} parameter(0)\n"
        '  %kernel = f32[4,4]{1,0} custom-call(%p), custom_call_target="tpu_custom_call", backend_config={"config":{\n'
        '"metadata":"{}"\n'
        '}}, metadata={op_name="a kernel"}\n'
        "  ROOT %r = f32[4,4]{1,0} dot(%kernel, %p), lhs_contracting_dims={1}, rhs_contracting_dims={0}\n"
        "}\n"
    )
    program = parse_program(text)
    assert list(program.computations["main"].instructions) == ["p", "kernel", "r"]
    assert "a kernel" in program.computations["main"].instructions["kernel"].attributes
    assert count_program(program).flops == 2 * 4 * 4 * 4
    with pytest.raises(ValueError, match="'main' ends without a ROOT"):
        parse_program(text.replace("ROOT ", ""))


def test_a_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        parse_program("module @jit_f {\n}\n")
