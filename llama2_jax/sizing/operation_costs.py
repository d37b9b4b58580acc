"""What one instruction of a compiled program computes and how much of the main memory it reads and writes."""

import math
import re
from collections.abc import Mapping

import numpy as np

from llama2_jax.sizing.program_text import ArrayType, Computation, Instruction, ProgramText

# These move nothing: they name, pass on or await what others made.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all",
    "partition-id", "replica-id", "opt-barrier", "optimization-barrier", "domain", "add-dependency", "async-start",
    "async-update", "async-done", "copy-done", "all-gather-done", "all-reduce-done", "collective-permute-done",
    "send", "send-done", "recv", "recv-done",
}  # fmt: skip

# The name that a matrix product keeps where the compiler writes it as a multiplication and a sum, such as decoding's
# product of one query with a row's keys.
_PRODUCT_NAME = re.compile(r'op_name="[^"]*/dot_general"')

# Custom calls that are no matrix products.
_WITHOUT_FLOPS = re.compile(
    r"AllocateBuffer|AssumeGatherIndicesInBound|GatherScatterIndices|Sharding|Barrier|MoveTo|annotate_device_placement|"
    r"PadToStatic|SliceToDynamic|TopK|ApproxTopK|Sort|cub\$|threefry|SetBound|LayoutConstraint|ResizeBuffer|ConcatBitcast|ZeroCrop",
    re.IGNORECASE,
)

# How many products of queries' and keys' size (q k^T is one) an attention kernel computes, by what its name contains.
_SPLASH_PRODUCTS = {"_fwd": 2, "_dq": 3, "_dkv": 4}
_CUDNN_PRODUCTS = {"backward": 5, "": 2}


def flops(instruction: Instruction, computation: Computation, program: ProgramText) -> float:
    """The operations of matrix products and attention kernels in an instruction, a multiply-add counted as two.

    Whatever else is computed is left out: it takes its time from the memory, not from the arithmetic.
    """
    if instruction.opcode == "dot":
        lhs = _operand(instruction, 0, computation)
        contracted = _integers(instruction.attribute("lhs_contracting_dims") or "")
        return 2.0 * instruction.types[0].elements * math.prod(lhs.shape[axis] for axis in contracted)
    if instruction.opcode == "convolution":
        return _convolution_flops(instruction, computation)
    if instruction.opcode == "custom-call":
        return _custom_call_flops(instruction, computation) or 0.0
    if instruction.opcode == "reduce" and _PRODUCT_NAME.search(instruction.attributes):
        return 2.0 * _operand(instruction, 0, computation).elements
    if instruction.opcode == "fusion":
        inside = [program.computations[name] for name in instruction.called]
        return sum(flops(one, within, program) for within in inside for one in within.instructions.values())
    return 0.0


def uncounted(instruction: Instruction, computation: Computation) -> str | None:
    """The name of a custom call of which nobody knows here what it computes; None for everything else."""
    if instruction.opcode != "custom-call" or _custom_call_flops(instruction, computation) is not None:
        return None
    return _target(instruction)


def memory_bytes(instruction: Instruction, computation: Computation, program: ProgramText) -> int:
    """How many bytes of the main memory an instruction reads and writes, at the least.

    A slice reads what it takes and an update writes what it changes, not the array that they take it from or put it
    in, also inside of a fusion. What lies in a memory on the chip costs nothing.
    """
    if instruction.opcode in _FREE or _target(instruction) == "AllocateBuffer":
        return 0
    types = instruction.types
    if instruction.opcode in ("copy-start", "all-gather-start", "collective-permute-start"):
        # The result is a tuple: on top of what is made, what it is made from and what keeps the account.
        types = types[:1] if instruction.opcode == "copy-start" else types[1:2]
    written = _written(program, computation, instruction.name, types)
    if instruction.opcode in ("dynamic-slice", "slice", "gather"):
        return 2 * written
    if instruction.opcode in ("dynamic-update-slice", "scatter"):
        update = _operand(instruction, 1 if instruction.opcode == "dynamic-update-slice" else 2, computation)
        return 2 * _in_memory(update)
    return written + sum(
        _read(program, instruction, number, operand)
        for number, operand in ((n, computation.instructions[name]) for n, name in enumerate(instruction.operands))
    )


def _read(program: ProgramText, instruction: Instruction, number: int, operand: Instruction) -> int:
    """What an instruction reads of one of its operands."""
    whole = sum(map(_in_memory, operand.types))
    if instruction.opcode != "fusion" or not whole:
        return whole
    inside = program.computations[instruction.called[0]]
    if number not in inside.parameters:
        return whole
    return min(whole, _read_inside(program, inside, inside.parameters[number]))


def _read_inside(program: ProgramText, computation: Computation, name: str) -> int:
    """How much of the value `name` the instructions of a fused computation read."""
    whole = sum(one.bytes for one in computation.instructions[name].types)
    if name == computation.root:
        return whole
    total = 0
    for user in computation.users.get(name, ()):
        if user.opcode in ("bitcast", "get-tuple-element"):
            total += _read_inside(program, computation, user.name)
        elif user.opcode in ("dynamic-slice", "slice", "gather") and user.operands[0] == name:
            total += sum(one.bytes for one in user.types)
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
            continue  # what is not changed stays where it is
        elif user.opcode == "fusion":
            inside = program.computations[user.called[0]]
            for parameter in (inside.parameters[at] for at, operand in enumerate(user.operands) if operand == name):
                if _is_passed_on(inside, parameter):
                    total += _read_inside(program, computation, user.name)
                else:
                    total += _read_inside(program, inside, parameter)
        else:
            return whole
    return min(whole, total)


def _is_passed_on(computation: Computation, name: str) -> bool:
    """Whether a fused computation does no more than to give the value `name` another shape."""
    root = computation.instructions[computation.root]
    while root.opcode == "bitcast":
        root = computation.instructions[root.operands[0]]
    return root.name == name


def _written(program: ProgramText, computation: Computation, name: str, types: tuple[ArrayType, ...]) -> int:
    """What the instruction `name`, whose result lies as `types` say, writes to the main memory."""
    if not any(_in_memory(one) for one in types):
        return 0
    instruction = computation.instructions[name]
    if instruction.opcode == "fusion":
        inside = program.computations[instruction.called[0]]
        return _written(program, inside, inside.root, types)
    if instruction.opcode == "tuple" and len(instruction.operands) == len(types):
        return sum(
            _written(program, computation, operand, (one,))
            for operand, one in zip(instruction.operands, types, strict=True)
        )
    if instruction.opcode == "bitcast":
        return _written(program, computation, instruction.operands[0], types)
    if instruction.opcode == "dynamic-update-slice":
        return _operand(instruction, 1, computation).bytes
    return sum(map(_in_memory, types))


def _in_memory(one: ArrayType) -> int:
    return one.bytes if one.memory_space == 0 else 0


def _operand(instruction: Instruction, number: int, computation: Computation) -> ArrayType:
    return computation.instructions[instruction.operands[number]].types[0]


def _convolution_flops(instruction: Instruction, computation: Computation) -> float:
    """TPUs are given every matrix product as a convolution; batch dimensions become spatial ones that are dilated."""
    lhs, rhs = (_operand(instruction, number, computation).shape for number in (0, 1))
    lhs_labels, rhs_labels, out_labels = re.match(
        r"(\w+)_(\w+)->(\w+)", instruction.attribute("dim_labels") or ""
    ).groups()
    out = instruction.types[0].shape
    groups = int(instruction.attribute("feature_group_count") or 1)
    batch_groups = int(instruction.attribute("batch_group_count") or 1)
    products = lhs[lhs_labels.index("f")] // groups * rhs[rhs_labels.index("o")]
    products *= lhs[lhs_labels.index("b")] // batch_groups
    window = dict(part.split("=") for part in (instruction.attribute("window") or "{}")[1:-1].split())
    for axis in range(len(lhs) - 2):
        label = str(axis)
        products *= _valid_positions(
            lhs[lhs_labels.index(label)], rhs[rhs_labels.index(label)], out[out_labels.index(label)], window, axis
        )
    return 2.0 * products


def _valid_positions(size: int, kernel: int, out: int, window: Mapping[str, str], axis: int) -> int:
    """How many pairs of an output's and the kernel's position along an axis meet an element, not padding or a hole."""

    def setting(name: str, default: str) -> str:
        return window[name].split("x")[axis] if name in window else default

    stride, dilate = int(setting("stride", "1")), int(setting("lhs_dilate", "1"))
    pad, kernel_dilate = int(setting("pad", "0_0").split("_")[0]), int(setting("rhs_dilate", "1"))
    index = np.arange(out)[:, None] * stride - pad + np.arange(kernel)[None, :] * kernel_dilate
    return int(np.sum((index >= 0) & (index < (size - 1) * dilate + 1) & (index % dilate == 0)))


def _custom_call_flops(instruction: Instruction, computation: Computation) -> float | None:
    """The operations of a custom call; None where that is not known."""
    target = _target(instruction)
    if _WITHOUT_FLOPS.search(target):
        return 0.0
    operands = [_operand(instruction, number, computation) for number in range(len(instruction.operands))]
    arrays = [one for one in operands if len(one.shape) >= 3 and one.dtype in ("bf16", "f16", "f32")]
    if target.startswith(("__cublas$gemm", "__cublas$lt$matmul")):
        contracted = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.attributes)
        sizes = [operands[0].shape[axis] for axis in _integers(contracted[1])] if contracted else []
        return 2.0 * instruction.types[0].elements * math.prod(sizes)
    if target.startswith("__cudnn$fmha") and len(arrays) >= 3:
        q, k = arrays[:2]
        products = next(count for part, count in _CUDNN_PRODUCTS.items() if part in target.lower())
        causal = 0.5 if "CAUSAL" in instruction.attributes else 1.0
        return causal * products * 2.0 * q.elements * k.shape[1]
    if target == "tpu_custom_call" and "splash_m" in instruction.name and len(arrays) >= 3:
        q, k = arrays[:2]
        products = next((count for part, count in _SPLASH_PRODUCTS.items() if part in instruction.name), None)
        if products is None:
            return None
        # The kernel of both gradients in one makes the queries' gradient beside those of keys and values.
        made = sum(len(one.shape) >= 4 and one.shape[-2:] == q.shape[-2:] for one in instruction.types)
        products += "_dkv" in instruction.name and made == 3
        return 0.5 * products * 2.0 * q.elements * k.shape[-2]  # causal: half of the products
    return None


def _target(instruction: Instruction) -> str:
    found = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
    return found[1] if found else ""


def _integers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]
