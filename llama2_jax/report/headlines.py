"""The numbers at the top of the page."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from llama2_jax.evaluation.measures import Measure
from llama2_jax.report.formatting import half_interval, number, percent


@dataclasses.dataclass(frozen=True)
class Headline:
    """The newest version's value of a measure.

    Attributes:
      title: the measure's.
      value: the newest value.
      before: the first version's value; None if there is none to compare with.
      better: whether the change is for the better; None if it is neither.
      note: a line below the value.
    """

    title: str
    value: str
    before: str | None = None
    better: bool | None = None
    note: str = ""


def headlines(report: Mapping, measures: Sequence[Measure]) -> list[Headline]:
    """Returns the headlines; what was not measured is left out.

    Args:
      report: the content of report.json.
      measures: the declarations of the versions' measures.
    """
    found = [*_of_versions(report["versions"], measures), *_of_reward_models(report["reward_models"])]
    for row in report["ppo"][-1:]:
        before, after = row["held_out_reward_before"], row["held_out_reward"]
        error = row["held_out_gain_standard_error"]
        interval = "" if error is None else f"gain ± {half_interval(error):.3f} (95%), "
        note = f"{interval}best at iteration {row['best_iteration']}"
        found += _compared("PPO held-out reward", before, after, "higher", note, number)
    return found


def _of_versions(versions: Sequence[Mapping], measures: Sequence[Measure]) -> list[Headline]:
    if not versions:
        return []
    first, last = versions[0] if len(versions) > 1 else {"instruction_kept": {}}, versions[-1]
    found = []
    for measure in measures:
        if not measure.headline or last[measure.name] is None:
            continue
        error = half_interval(last[measure.standard_error]) if measure.standard_error else None
        shown = percent if measure.share else number
        interval = "" if error is None else f"± {error:.1%} (95%), " if measure.share else f"± {error:.3f} (95%), "
        before, note = first.get(measure.name), interval + measure.headline
        if before is None and measure.chart and measure.chart.reference is not None:
            # A win rate of the first version over itself does not exist: compare with the chart's reference.
            better = _better(measure.chart.reference, last[measure.name], measure.better)
            found.append(Headline(measure.label, shown(last[measure.name]), better=better, note=note))
        else:
            found += _compared(measure.label, before, last[measure.name], measure.better, note, shown)
    # No dialogue may have reached the last of the turns.
    turns = sorted((turn for turn, kept in last["instruction_kept"].items() if kept is not None), key=int)
    if turns:
        before, after = (version["instruction_kept"].get(turns[-1]) for version in (first, last))
        found += _compared("instruction kept", before, after, "higher", f"at turn {turns[-1]}", percent)
    return found


def _of_reward_models(rows: Sequence[Mapping]) -> list[Headline]:
    found = []
    for kind, row in {row["kind"]: row for row in rows}.items():
        accuracy, error = (row[name].get(kind, {}).get("all") for name in ("accuracy", "standard_error"))
        if accuracy is not None:
            interval = "" if error is None else f", ± {half_interval(error):.1%}"
            note = f"agrees with annotators on held-out {kind} pairs{interval}"
            found.append(Headline(f"{kind} reward model", percent(accuracy), note=note))
    return found


def _compared(
    title: str, before: float | None, after: float | None, better: str | None, note: str, shown: Callable
) -> list[Headline]:
    if after is None:
        return []
    if before is None:
        return [Headline(title, shown(after), note=note)]
    return [Headline(title, shown(after), shown(before), _better(before, after, better), note)]


def _better(before: float, after: float, better: str | None) -> bool | None:
    """Returns whether `after` is better than `before`; None if they are equal or neither direction is better."""
    if better is None or before == after:
        return None
    return (after > before) == (better == "higher")
