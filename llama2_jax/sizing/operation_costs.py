"""The work of one instruction of a compiled program: its operations, and the main memory that it reads and writes."""

import math
import re
from collections.abc import Mapping

import numpy as np

from llama2_jax.sizing.program_text import ArrayType, Computation, Instruction, ProgramText

# These move no data: they name, pass on or await the results of others.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all",
    "partition-id", "replica-id", "opt-barrier", "optimization-barrier", "domain", "add-dependency", "async-start",
    "async-update", "async-done", "copy-done", "all-gather-done", "all-reduce-done", "collective-permute-done",
    "send", "send-done", "recv", "recv-done",
}  # fmt: skip

# The name that a matrix product keeps if the compiler writes it as a multiplication and a sum, such as decoding's
# product of one query with a row's keys.
_PRODUCT_NAME = re.compile(r'op_name="[^"]*/dot_general"')

# Custom calls without matrix products.
_WITHOUT_FLOPS = re.compile(
    r"AllocateBuffer|AssumeGatherIndicesInBound|GatherScatterIndices|Sharding|Barrier|MoveTo|annotate_device_placement|"
    r"PadToStatic|SliceToDynamic|TopK|ApproxTopK|Sort|cub\$|threefry|SetBound|LayoutConstraint|ResizeBuffer|ConcatBitcast|ZeroCrop",
    re.IGNORECASE,
)

# How many products of the size of q k^T an attention kernel computes, by a part of its name.
_SPLASH_PRODUCTS = {"_fwd": 2, "_dq": 3, "_dkv": 4}
_CUDNN_PRODUCTS = {"backward": 5, "": 2}


def flops(instruction: Instruction, computation: Computation, program: ProgramText) -> float:
    """Returns the operations of matrix products and attention kernels in an instruction; a multiply-add counts as two.

    Other computation is not counted: its time is bound by the memory, not by the arithmetic.
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
        called = [program.computations[name] for name in instruction.called]
        return sum(flops(inner, fused, program) for fused in called for inner in fused.instructions.values())
    return 0.0


def uncounted(instruction: Instruction, computation: Computation) -> str | None:
    """Returns the name of a custom call whose operations are not known, and None for every other instruction."""
    if instruction.opcode != "custom-call" or _custom_call_flops(instruction, computation) is not None:
        return None
    return _target(instruction)


def memory_bytes(instruction: Instruction, computation: Computation, program: ProgramText) -> int:
    """Returns the bytes of the main memory that an instruction reads and writes, at least.

    A slice reads only the slice and an update writes only the change, not the whole array, also inside a fusion. Arrays
    in a memory on the chip cost nothing.
    """
    if instruction.opcode in _FREE or _target(instruction) == "AllocateBuffer":
        return 0
    types = instruction.types
    if instruction.opcode in ("copy-start", "all-gather-start", "collective-permute-start"):
        # The result is a tuple of the result itself, the operand and the bookkeeping.
        types = types[:1] if instruction.opcode == "copy-start" else types[1:2]
    written = _written(program, computation, instruction.name, types)
    if instruction.opcode in ("dynamic-slice", "slice", "gather"):
        return 2 * written
    if instruction.opcode in ("dynamic-update-slice", "scatter"):
        update = _operand(instruction, 1 if instruction.opcode == "dynamic-update-slice" else 2, computation)
        return 2 * _main_memory_bytes(update)
    operands = [computation.instructions[name] for name in instruction.operands]
    return written + sum(_read(program, instruction, index, operand) for index, operand in enumerate(operands))


def _read(program: ProgramText, instruction: Instruction, index: int, operand: Instruction) -> int:
    """Returns the bytes that an instruction reads of its operand number `index`."""
    size = sum(map(_main_memory_bytes, operand.types))
    if instruction.opcode != "fusion" or not size:
        return size
    fused = program.computations[instruction.called[0]]
    if index not in fused.parameters:
        return size
    return min(size, _read_in_fusion(program, fused, fused.parameters[index]))


def _read_in_fusion(program: ProgramText, computation: Computation, name: str) -> int:
    """Returns the bytes of the value `name` that the instructions of a fused computation read."""
    size = sum(array.bytes for array in computation.instructions[name].types)
    if name == computation.root:
        return size
    total = 0
    for user in computation.users.get(name, ()):
        if user.opcode in ("bitcast", "get-tuple-element"):
            total += _read_in_fusion(program, computation, user.name)
        elif user.opcode in ("dynamic-slice", "slice", "gather") and user.operands[0] == name:
            total += sum(array.bytes for array in user.types)
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
            continue  # the rest of the array is updated in place
        elif user.opcode == "fusion":
            fused = program.computations[user.called[0]]
            for parameter in (fused.parameters[at] for at, operand in enumerate(user.operands) if operand == name):
                if _is_only_reshaped(fused, parameter):
                    total += _read_in_fusion(program, computation, user.name)
                else:
                    total += _read_in_fusion(program, fused, parameter)
        else:
            return size
    return min(size, total)


def _is_only_reshaped(computation: Computation, name: str) -> bool:
    """Returns whether a fused computation only gives the value `name` another shape."""
    root = computation.instructions[computation.root]
    while root.opcode == "bitcast":
        root = computation.instructions[root.operands[0]]
    return root.name == name


def _written(program: ProgramText, computation: Computation, name: str, types: tuple[ArrayType, ...]) -> int:
    """Returns the bytes that the instruction `name`, with a result of these types, writes to the main memory."""
    if not any(map(_main_memory_bytes, types)):
        return 0
    instruction = computation.instructions[name]
    if instruction.opcode == "fusion":
        fused = program.computations[instruction.called[0]]
        return _written(program, fused, fused.root, types)
    if instruction.opcode == "tuple" and len(instruction.operands) == len(types):
        return sum(
            _written(program, computation, operand, (array,))
            for operand, array in zip(instruction.operands, types, strict=True)
        )
    if instruction.opcode == "bitcast":
        return _written(program, computation, instruction.operands[0], types)
    if instruction.opcode == "dynamic-update-slice":
        return _operand(instruction, 1, computation).bytes
    return sum(map(_main_memory_bytes, types))


def _main_memory_bytes(array: ArrayType) -> int:
    return array.bytes if array.memory_space == 0 else 0


def _operand(instruction: Instruction, index: int, computation: Computation) -> ArrayType:
    return computation.instructions[instruction.operands[index]].types[0]


def _convolution_flops(instruction: Instruction, computation: Computation) -> float:
    """Returns the operations of a convolution.

    For TPUs every matrix product is written as one, with batch dimensions as dilated spatial ones.
    """
    lhs, rhs = (_operand(instruction, index, computation).shape for index in (0, 1))
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
    """Returns how many pairs of positions of output and kernel along an axis meet an element, not padding or a hole."""

    def setting(name: str, default: str) -> str:
        return window[name].split("x")[axis] if name in window else default

    stride, dilate = int(setting("stride", "1")), int(setting("lhs_dilate", "1"))
    pad, kernel_dilate = int(setting("pad", "0_0").split("_")[0]), int(setting("rhs_dilate", "1"))
    index = np.arange(out)[:, None] * stride - pad + np.arange(kernel)[None, :] * kernel_dilate
    return int(np.sum((index >= 0) & (index < (size - 1) * dilate + 1) & (index % dilate == 0)))


def _custom_call_flops(instruction: Instruction, computation: Computation) -> float | None:
    """Returns the operations of a custom call, or None if they are not known."""
    target = _target(instruction)
    if _WITHOUT_FLOPS.search(target):
        return 0.0
    operands = [_operand(instruction, index, computation) for index in range(len(instruction.operands))]
    arrays = [array for array in operands if len(array.shape) >= 3 and array.dtype in ("bf16", "f16", "f32")]
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
        # The fused backward kernel computes the queries' gradient in addition to those of keys and values.
        gradients = sum(len(array.shape) >= 4 and array.shape[-2:] == q.shape[-2:] for array in instruction.types)
        products += "_dkv" in instruction.name and gradients == 3
        return 0.5 * products * 2.0 * q.elements * k.shape[-2]  # causal: half of the products
    return None


def _target(instruction: Instruction) -> str:
    found = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
    return found[1] if found else ""


def _integers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]
