"""Parser of a compiled program's text (`compiled.as_text()`), into computations and instructions.

The text is the program of one device after partitioning, fusion and scheduling: the only source of what will really be
computed, read and sent. Only the parts that program_costs.py needs are kept.
"""

import dataclasses
import functools
import math
import re

# The bits of an element; types that are not arrays (tokens) have none.
_BITS = {"pred": 8, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "bf16": 16, "c64": 64, "c128": 128}

_ARRAY = re.compile(r"(\w+)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([\w\-]+)\(")
_NAME = re.compile(r"%([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class ArrayType:
    """The type of an array: its element type, its shape, and its memory space (0: the device's main memory)."""

    dtype: str
    shape: tuple[int, ...]
    memory_space: int = 0

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Its size, without the padding of its layout."""
        return -(-self.elements * _bits(self.dtype) // 8)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
      name: unique in the program.
      opcode: such as dot, fusion, all-gather-start.
      types: of its result; for a tuple the types of all its arrays.
      operands: the names of the instructions that it reads.
      argument: the text in its parentheses if that is no name: a constant's value, a parameter's number.
      attributes: the text after the parentheses.
    """

    name: str
    opcode: str
    types: tuple[ArrayType, ...]
    operands: tuple[str, ...]
    argument: str
    attributes: str

    @functools.cached_property
    def called(self) -> tuple[str, ...]:
        """The computations that it runs: a fusion's, a loop's body, a conditional's branches; not a reduction's."""
        found = re.findall(r"(?:calls|body|true_computation|false_computation)=%?([\w.\-]+)", self.attributes)
        branches = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        if branches:
            found += _NAME.findall(branches[1])
        if self.opcode == "call":
            found += re.findall(r"to_apply=%?([\w.\-]+)", self.attributes)
        return tuple(found)

    def attribute(self, name: str) -> str | None:
        """Returns the attribute's value up to the next comma outside brackets, or None if there is none."""
        start = self.attributes.find(f" {name}=")
        if start < 0:
            return None
        start += len(name) + 2
        depth = 0
        for end in range(start, len(self.attributes)):
            character = self.attributes[end]
            if character in "{[(":
                depth += 1
            elif character in "}])":
                depth -= 1
            elif character == "," and not depth:
                return self.attributes[start:end]
        return self.attributes[start:]


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in the order of the text, and the name of the one that is the result."""

    name: str
    instructions: dict[str, Instruction]
    root: str

    @functools.cached_property
    def parameters(self) -> dict[int, str]:
        """The name of each parameter by its number."""
        return {int(i.argument): i.name for i in self.instructions.values() if i.opcode == "parameter"}

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """The instructions that read each instruction's result."""
        users: dict[str, list[Instruction]] = {}
        for instruction in self.instructions.values():
            for operand in dict.fromkeys(instruction.operands):
                users.setdefault(operand, []).append(instruction)
        return users


@dataclasses.dataclass(frozen=True)
class ProgramText:
    """All computations of a program by name, the name of its entry, and the number of devices it is split over."""

    computations: dict[str, Computation]
    entry: str
    devices: int


def parse_program(text: str) -> ProgramText:
    """Parses the text of a compiled program.

    Raises:
      ValueError: if the text has no entry computation, or is incomplete.
    """
    computations: dict[str, Computation] = {}
    entry = name = root = ""
    lines: dict[str, str] = {}
    for line in text.splitlines():
        header, instruction = _HEADER.match(line), _INSTRUCTION.match(line)
        if header:
            name, lines, root = header[2], {}, ""
            entry = name if header[1] else entry
        elif line.rstrip() == "}" and name:
            if not root:
                raise ValueError(f"computation {name!r} ends without a ROOT: the program's text is incomplete")
            instructions = {key: _parse_instruction(key, line) for key, line in lines.items()}
            computations[name] = Computation(name, instructions, root)
            name = ""
        elif instruction and name:
            lines[instruction[2]] = line[instruction.end() :]
            root = instruction[2] if instruction[1] else root
        elif lines and name:
            # A kernel's metadata may have line breaks, and lines that begin with a brace.
            lines[next(reversed(lines))] += "\n" + line
    if not entry:
        raise ValueError("the text has no ENTRY computation: it is not that of a compiled program")
    devices = re.search(r"num_partitions=(\d+)", text[: text.index("\n")])
    return ProgramText(computations, entry, int(devices[1]) if devices else 1)


def _parse_instruction(name: str, text: str) -> Instruction:
    type_end = _closing(text, 0) if text.startswith("(") else text.index(" ")
    opcode = _OPCODE.match(text, type_end)
    if opcode is None:  # never observed
        raise ValueError(f"instruction {name!r} has no operation: {text[:200]!r}")
    operands_end = _closing(text, opcode.end() - 1)
    inside = text[opcode.end() : operands_end - 1]
    return Instruction(
        name=name,
        opcode=opcode[1],
        types=_types(text[:type_end]),
        operands=tuple(_NAME.findall(inside)) if opcode[1] != "constant" else (),
        argument=inside if opcode[1] in ("constant", "parameter") else "",
        attributes=text[operands_end:],
    )


def _closing(text: str, opening: int) -> int:
    """Returns the index after the parenthesis that closes the one at `opening`."""
    depth = 0
    for match in re.finditer(r"[()]", text[opening:]):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return opening + match.end()
    return len(text)


@functools.lru_cache(maxsize=100_000)
def _types(text: str) -> tuple[ArrayType, ...]:
    types = []
    for dtype, shape, layout in _ARRAY.findall(text):
        space = re.search(r"S\((\d+)\)", layout)
        sizes = tuple(int(size.removeprefix("<=")) for size in shape.split(",") if size)
        types.append(ArrayType(dtype, sizes, int(space[1]) if space else 0))
    return tuple(types)


@functools.cache
def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    digits = re.match(r"[a-z]+(\d+)", dtype)  # f32, s8, u16, f8e4m3fn
    return int(digits[1]) if digits else 0
