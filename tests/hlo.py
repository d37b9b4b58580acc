"""Reads the text of a compiled program: its collectives, what they carry, and whether a loop runs them."""

import dataclasses
import re
from collections import Counter

KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute|collective-broadcast"
# What an instruction calls that runs as part of it; a loop's body and condition are named apart.
CALLED = re.compile(r"(?:calls|to_apply|branch_computations|true_computation|false_computation)=\{?([^,}\s]+)")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a compiled program.

    Attributes:
      kind: all-gather, all-reduce, ...
      arrays: (dtype, shape without dimensions of 1) of each array that comes out of it.
      computation: where it stands.
      in_loop: whether that is a loop's body, or called from one.
    """

    kind: str
    arrays: tuple[tuple[str, tuple[int, ...]], ...]
    computation: str
    in_loop: bool

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [shape for _, shape in self.arrays]


def collectives(text: str) -> list[Collective]:
    """The collectives in a compiled program's text (`compiled.as_text()`), in its order."""
    inside, found = _in_loops(text), []
    for computation, line in _instructions(text):
        match = re.search(rf" = (.*?) ({KINDS})(-start)?\(", line)
        if match:
            arrays = _arrays(match[1])
            if match[3]:  # the start of an asynchronous one gives its operands and its results
                arrays = arrays[len(arrays) // 2 :]
            if match[2] == "all-to-all":  # on some platforms a tuple of the parts that go to each device
                arrays = arrays[:1] * len(arrays)
            found.append(Collective(match[2], tuple(arrays), computation, computation in inside))
    return found


def shapes_in(text: str) -> set[tuple[int, ...]]:
    """The shapes of all arrays of a program, without dimensions of 1."""
    return {shape for _, shape in _arrays(text)}


def by_body(found: list[Collective], kind: str) -> list[Counter]:
    """For each loop body that has collectives of a kind, how often it moves an array of each (sorted) shape."""
    bodies: dict[str, Counter] = {}
    for one in found:
        if one.in_loop and one.kind == kind:
            bodies.setdefault(one.computation, Counter()).update(tuple(sorted(shape)) for shape in one.shapes)
    return list(bodies.values())


def _arrays(text: str) -> list[tuple[str, tuple[int, ...]]]:
    arrays = re.findall(r"\b([a-z]+[0-9]+|pred)\[([0-9,]*)\]", text)
    return [(dtype, tuple(int(size) for size in sizes.split(",") if size not in ("", "1"))) for dtype, sizes in arrays]


def _instructions(text: str):
    computation = ""
    for line in text.splitlines():
        if line and not line[0].isspace() and line.rstrip().endswith("{"):
            computation = line.removeprefix("ENTRY ").split()[0].lstrip("%")
        elif line.startswith(" "):
            yield computation, line


def _in_loops(text: str) -> set[str]:
    calls, bodies = {}, set()
    for computation, line in _instructions(text):
        called = [name.lstrip("%") for name in CALLED.findall(line)]
        if " while(" in line:
            body = re.search(r"body=%?([^,\s]+)", line)[1]
            bodies.add(body)
            called.append(body)
        calls.setdefault(computation, []).extend(called)
    inside, new = set(), list(bodies)
    while new:
        name = new.pop()
        if name not in inside:
            inside.add(name)
            new += calls.get(name, [])
    return inside
