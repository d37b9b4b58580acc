"""A dry run's report as text for a terminal."""

from collections.abc import Sequence
from typing import Any

_COLUMNS = (
    "  program", "params", "optimizer", "activations", "peak", "FLOP", "sent", "time", "bound by", "MFU", "fits"
)  # fmt: skip
_WIDTHS = (30, 10, 11, 12, 10, 10, 10, 10, 12, 7, 5)
# If less than this fraction of the operations that the model needs is found in a program, the table has a note.
_MIN_COUNTED = 0.95
_UNITS = ((30, "GiB"), (20, "MiB"), (10, "KiB"))


def table(report: dict[str, Any]) -> str:
    """Returns a line for each program of each stage: memory and work of one device in one run of the program."""
    chip, mesh = report["chip"], " x ".join(f"{name}={size}" for name, size in report["mesh"].items())
    lines = [
        f"{report['experiment']}:{report['scale']} on {report['devices']} devices ({mesh}), "
        f"{report['topology'] or chip['name']}, {_size(chip['memory_bytes'])} each.",
        "For each device and one run of the program: memory of parameters, optimizer and activations; operations of "
        "matrix products; bytes sent to other devices.",
        "",
        _line(_COLUMNS),
    ]
    for stage in report["stages"]:
        lines.append(stage["stage"])
        lines += [_line(_cells(program, chip)) for program in stage["programs"]]
        if stage.get("unit_seconds"):
            lines.append(f"  one {stage['unit']}: {_seconds(stage['unit_seconds'])}, MFU {stage['unit_mfu']:.1%}")
        lines += [f"  {note}" for note in (*stage["assumptions"], *_notes(stage))]
    lines += ["", *(f"- {assumption}" for assumption in report["assumptions"]), "", verdict(report)]
    return "\n".join(lines)


def verdict(report: dict[str, Any]) -> str:
    """Returns one sentence that says whether everything fits."""
    memory = _size(report["chip"]["memory_bytes"])
    if report["fits"]:
        return f"It fits: {_size(report['peak_bytes'])} of {memory} at most."
    too_large = [
        f"{stage['stage']}, {program['program']} ({_peak(program, report['chip'])})"
        for stage in report["stages"]
        for program in stage["programs"]
        if not program["fits"]
    ]
    return f"It does not fit in {memory}: {'; '.join(too_large)}."


def _line(cells: Sequence[str]) -> str:
    first, *rest = cells
    return first.ljust(_WIDTHS[0]) + "".join(cell.rjust(width) for cell, width in zip(rest, _WIDTHS[1:], strict=True))


def _cells(program: dict[str, Any], chip: dict[str, Any]) -> tuple[str, ...]:
    sizes = [_size(program[f"{name}_bytes"]) for name in ("parameter", "optimizer", "activation")]
    name, fits = f"  {program['program']}", "yes" if program["fits"] else "NO"
    if "error" in program:
        return (name, *sizes, _peak(program, chip), *[""] * 5, fits)
    mfu = "" if program["mfu"] is None else f"{program['mfu']:.1%}"
    sent = _size(sum(program["collective_bytes"].values()))
    work = _operations(program["flops"]), sent, _seconds(program["seconds"]), program["bound"] or "", mfu
    return (name, *sizes, _peak(program, chip), *work, fits)


def _notes(stage: dict[str, Any]) -> list[str]:
    """Returns notes on what could not be counted in the programs."""
    notes = []
    for program in stage["programs"]:
        if program.get("uncounted"):
            calls = ", ".join(f"{name} ({times} times)" for name, times in program["uncounted"].items())
            notes.append(f"{program['program']}: the operations of these custom calls are not counted: {calls}")
        counted = program.get("counted_of_needed")
        if counted is not None and counted < _MIN_COUNTED:
            notes.append(
                f"{program['program']}: only {counted:.0%} of the operations that the model needs were found in the "
                "program: times are too short"
            )
        if program.get("guessed_loops", 0) > 1:
            notes.append(f"{program['program']}: {program['guessed_loops']} loops have an unknown number of iterations")
    return notes


def _peak(program: dict[str, Any], chip: dict[str, Any]) -> str:
    """Returns the peak memory; if the compiler failed it is not known, but more than the device has."""
    return f">{_size(chip['memory_bytes'])}" if "error" in program else _size(program["peak_bytes"])


def _size(size: float | None) -> str:
    if size is None:
        return "?"
    unit, name = next(((2**power, name) for power, name in _UNITS if size >= 2**power), (1024, "KiB"))
    return f"{size / unit:.3g} {name}" if size else "0"


def _operations(count: float) -> str:
    return f"{count / 1e12:.3g} T" if count >= 1e11 else f"{count / 1e9:.3g} G"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
