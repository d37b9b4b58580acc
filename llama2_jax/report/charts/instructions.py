"""Charts of answers under a standing instruction, turn after turn."""

from collections.abc import Mapping, Sequence

from llama2_jax.report.plots import Series, XAxis, YAxis, line_chart
from llama2_jax.report.svg import shade

KNOWN, NEW, ATTENTION = "instruction_kept", "new_instruction_kept", "instruction_attention"


def measured_turns(versions: Sequence[Mapping], field: str) -> list[str]:
    """Returns the turns at which a field has a value for any version, in order."""
    turns = {turn for version in versions for turn, value in version[field].items() if value is not None}
    return sorted(turns, key=int)


def instruction_charts(versions: Sequence[Mapping], labels: Sequence[str]) -> dict[str, str | None]:
    """Returns the charts by name: kept instructions, new ones, and attention to the system message.

    Args:
      versions: rows of report.json.
      labels: one per version.
    """
    return {
        "instructions": _kept("instructions", versions, KNOWN, labels),
        "new_instructions": _kept("new_instructions", versions, NEW, labels),
        "instruction_attention": _attention(versions, labels),
    }


def _kept(name: str, versions: Sequence[Mapping], field: str, labels: Sequence[str]) -> str | None:
    """Returns the share of answers that keep the instruction, one line per turn."""
    turns = measured_turns(versions, field)
    series = [
        Series(
            f"turn {turn}",
            shade(len(turns) - 1 - index, len(turns)),
            range(len(versions)),
            [version[field].get(turn) for version in versions],
        )
        for index, turn in enumerate(turns)
    ]
    return line_chart(name, series, XAxis(names=labels), YAxis(share=True, bottom=0.0, top=1.0))


def _attention(versions: Sequence[Mapping], labels: Sequence[str]) -> str | None:
    """Returns the attention to the system message by turn, one line per version."""
    turns = measured_turns(versions, ATTENTION)
    series = [
        Series(
            label.replace("\n", " "),
            shade(index, len(versions)),
            [int(turn) for turn in turns],
            [version[ATTENTION].get(turn) for turn in turns],
        )
        for index, (label, version) in enumerate(zip(labels, versions, strict=True))
    ]
    return line_chart(
        "instruction_attention", series, XAxis("turn", integers=True), YAxis("largest attention weight", bottom=0.0)
    )
