"""The work of one run of a compiled program on one device, with loops counted as often as they run.

XLA's own `cost_analysis` counts the body of a loop once, and does not count what collectives send.
"""

import dataclasses
import math
import re
from collections import Counter

import numpy as np

from llama2_jax.sizing.operation_costs import flops, memory_bytes, uncounted
from llama2_jax.sizing.program_text import Computation, Instruction, ProgramText

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")

# The bytes that each of n devices sends, by the bytes of its operand, with algorithms on a ring.
_SENT = {
    "all-gather": lambda size, n: size * (n - 1),
    "reduce-scatter": lambda size, n: size * (n - 1) / n,
    "all-reduce": lambda size, n: 2 * size * (n - 1) / n,
    "all-to-all": lambda size, n: size * (n - 1) / n,
    "collective-permute": lambda size, n: size,
}

# The compiler's name of a fusion that is a reduce-scatter on a TPU, written as an all-reduce and a slice.
_REDUCE_SCATTER_FUSION = "all-reduce-scatter"


@dataclasses.dataclass(frozen=True)
class Operation:
    """An instruction's work: operations and bytes of the main memory in each run, and how often it runs."""

    flops: float
    memory_bytes: float
    times: int


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective, as one device takes part in it.

    Attributes:
      kind: one of KINDS.
      bytes: sent by the device in each run.
      group: the devices of one participating group, by their index in the mesh.
      times: how often it runs.
    """

    kind: str
    bytes: float
    group: tuple[int, ...]
    times: int


@dataclasses.dataclass(frozen=True)
class ProgramCosts:
    """The work of one run of a program on one device.

    Attributes:
      operations: all instructions that compute or move data within the device.
      collectives: all instructions that send to other devices.
      guessed_loops: the number of loops whose number of iterations is not known.
      uncounted: custom calls whose operations are not counted, and how often each runs.
    """

    operations: tuple[Operation, ...]
    collectives: tuple[Collective, ...]
    guessed_loops: int
    uncounted: dict[str, int]

    @property
    def flops(self) -> float:
        """The operations of all matrix products."""
        return sum(operation.flops * operation.times for operation in self.operations)

    @property
    def memory_bytes(self) -> float:
        """The bytes read from and written to the main memory."""
        return sum(operation.memory_bytes * operation.times for operation in self.operations)

    @property
    def collective_bytes(self) -> dict[str, float]:
        """The bytes sent, by kind of collective."""
        sent = Counter(dict.fromkeys(KINDS, 0.0))
        for collective in self.collectives:
            sent[collective.kind] += collective.bytes * collective.times
        return {kind: size for kind, size in sent.items() if size}


def count_program(program: ProgramText, loop_trips: int = 1) -> ProgramCosts:
    """Counts the work of one run.

    Args:
      program: from `parse_program`.
      loop_trips: the number of iterations of loops for which it is not known, such as decoding until every answer has
        ended; of nested such loops it applies to the outermost one.
    """
    counter = _Counter(program, loop_trips)
    counter.visit(program.computations[program.entry], 1, guessed=False)
    return ProgramCosts(
        tuple(counter.operations), tuple(counter.collectives), counter.guessed_loops, dict(counter.uncounted)
    )


class _Counter:
    """Visits the computations in the order in which they run."""

    def __init__(self, program: ProgramText, loop_trips: int):
        self.program = program
        self.loop_trips = loop_trips
        self.operations: list[Operation] = []
        self.collectives: list[Collective] = []
        self.guessed_loops = 0
        self.uncounted: Counter[str] = Counter()

    def visit(self, computation: Computation, times: int, guessed: bool) -> None:
        """Counts a computation that runs so many times; `guessed`: in a loop of unknown length."""
        for instruction in computation.instructions.values():
            if instruction.opcode == "while":
                self._visit_loop(instruction, times, guessed)
            elif instruction.opcode == "fusion":
                self._count(instruction, computation, times)
                self._count_fused(instruction, times)
            else:
                self._count(instruction, computation, times)
                for name in instruction.called:
                    self.visit(self.program.computations[name], times, guessed)

    def _visit_loop(self, instruction: Instruction, times: int, guessed: bool) -> None:
        trips = loop_trips(instruction, self.program)
        unknown = trips is None
        if unknown:
            self.guessed_loops += 1
            trips = 1 if guessed else self.loop_trips
        self.visit(
            self.program.computations[instruction.attribute("body").lstrip("%")], times * trips, guessed or unknown
        )

    def _count(self, instruction: Instruction, computation: Computation, times: int) -> None:
        work = flops(instruction, computation, self.program)
        moved = memory_bytes(instruction, computation, self.program)
        if work or moved:
            self.operations.append(Operation(work, moved, times))
        name = uncounted(instruction, computation)
        if name is not None:
            self.uncounted[name] += times
        self._count_collective(instruction, computation, times, instruction.opcode.removesuffix("-start"))

    def _count_fused(self, instruction: Instruction, times: int) -> None:
        for name in instruction.called:
            fused = self.program.computations[name]
            is_reduce_scatter = name.startswith(_REDUCE_SCATTER_FUSION)
            for inner in fused.instructions.values():
                kind = inner.opcode.removesuffix("-start")
                kind = "reduce-scatter" if is_reduce_scatter and kind == "all-reduce" else kind
                self._count_collective(inner, fused, times, kind)
                if inner.opcode == "fusion":
                    self._count_fused(inner, times)

    def _count_collective(self, instruction: Instruction, computation: Computation, times: int, kind: str) -> None:
        if kind not in KINDS:
            return
        group = collective_group(instruction, self.program.devices)
        operands = [computation.instructions[name] for name in instruction.operands]
        size = sum(array.bytes for operand in operands for array in operand.types)
        if len(group) > 1:
            self.collectives.append(Collective(kind, _SENT[kind](size, len(group)), group, times))


def loop_trips(instruction: Instruction, program: ProgramText) -> int | None:
    """Returns the iterations of a while loop, from the compiler's note or its condition; None if neither has them."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', instruction.attributes)
    if known:
        return int(known[1])
    condition = program.computations[instruction.attribute("condition").lstrip("%")]
    root = condition.instructions[condition.root]
    if root.opcode != "compare" or "direction=LT" not in root.attributes:
        return None
    counter, limit = (condition.instructions[name] for name in root.operands)
    if counter.opcode != "get-tuple-element" or limit.opcode != "constant":
        return None
    # Scans count from 0 by 1.
    return int(limit.argument)


def collective_group(instruction: Instruction, devices: int) -> tuple[int, ...]:
    """Returns the devices of the first of a collective's groups; the others are like it.

    Raises:
      ValueError: if the notation of the groups is unknown.
    """
    text = _groups_text(instruction.attributes)
    listed = re.match(r"\{\{([\d,]+)\}", text)
    if listed:
        return tuple(int(number) for number in listed[1].split(","))
    iota = re.match(r"\[([\d,]+)\](<=.*)", text)
    if iota:
        size = int(iota[1].split(",")[-1])
        return tuple(_iota(iota[2].removeprefix("<="))[:size].tolist())
    mesh = re.match(r"mesh\[([^\]]*)\](?:, device_ids=\((\S*)\))? \{([^}:]*)\}", text)
    if mesh:
        axes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh[1])}
        group_axes = set(re.findall(r"'([^']+)'", mesh[3]))
        ids = _iota(mesh[2]) if mesh[2] else np.arange(math.prod(axes.values()))
        index = tuple(slice(None) if axis in group_axes else 0 for axis in axes)
        return tuple(np.reshape(ids, tuple(axes.values()))[index].ravel().tolist())
    if text.startswith("{}"):
        return tuple(range(devices))
    raise ValueError(f"the groups of {instruction.name} have an unknown notation: {text[:200]}")


def _groups_text(attributes: str) -> str:
    start = re.search(r" (?:replica_groups|source_target_pairs)=", attributes)
    return attributes[start.end() :] if start else "{}"


def _iota(text: str) -> np.ndarray:
    """Returns the numbers of [4,2]T(1,0): 0, 1, ... in an array of that shape, transposed and flattened."""
    shape, order = re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text).groups()
    sizes = [int(size) for size in shape.split(",")]
    numbers = np.arange(math.prod(sizes)).reshape(sizes)
    return numbers.transpose([int(axis) for axis in order.split(",")] if order else range(len(sizes))).ravel()
