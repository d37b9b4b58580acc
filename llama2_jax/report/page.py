"""The report as one HTML page that needs no network: the template is report.html.jinja, the charts are plots."""

import dataclasses
import importlib.resources
import json
import re
from collections.abc import Mapping, Sequence

import jinja2
from markupsafe import Markup

from llama2_jax.evaluation.reward_accuracy import RATINGS
from llama2_jax.report.charts import all_charts, version_labels


@dataclasses.dataclass(frozen=True)
class Headline:
    """A number for the top of the page: the newest version's, and the first one's to compare with."""

    title: str
    value: str
    before: str | None = None
    better: bool | None = None
    note: str = ""


def render_page(report: Mapping, answers: Sequence[Mapping], records: Mapping[str, Mapping]) -> str:
    """The page.

    Args:
      report: the content of report.json.
      answers: prompts with the first and last version's answers (report.sample_answers).
      records: stage.json of every stage, by name, in the order in which they ran.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "number": number, "duration": duration, "words": words}
    template = importlib.resources.files(__package__).joinpath("report.html.jinja").read_text(encoding="utf-8")
    labels = version_labels([version["name"] for version in report["versions"]])
    # Matplotlib has escaped what stands in the charts.
    charts = {name: [Markup(svg) for svg in svgs] for name, svgs in all_charts(report, labels).items()}
    return environment.from_string(template).render(
        report=report,
        labels=[label.replace("\n", " ") for label in labels],
        charts=charts,
        headlines=headlines(report),
        turns=sorted({turn for version in report["versions"] for turn in version["instruction_kept"]}, key=int),
        ratings=(*RATINGS, "all"),
        newest_reward_models=[
            row for row in report["reward_models"] if row["round"] == report["reward_models"][-1]["round"]
        ],
        answers=[with_chips(entry) for entry in answers],
        times=times(report["seconds"]),
        differences=differing_settings(report, records),
        settings={name: json.dumps(settings_of(name, record), indent=2) for name, record in records.items()},
        package_versions=next(reversed(list(records.values())), {}).get("versions", {}),
    )


def headlines(report: Mapping) -> list[Headline]:
    """The numbers at the top; those that were not measured are left out."""
    found = []
    versions = report["versions"]
    if versions:
        first, last = versions[0] if len(versions) > 1 else {"instruction_kept": {}}, versions[-1]
        if last["win_rate_vs_sft"] is not None:
            error = last["win_rate_standard_error"]
            note = "ties left out" if error is None else f"± {1.96 * error:.1%} (95%), ties left out"
            better = last["win_rate_vs_sft"] > 0.5
            found.append(Headline("wins over SFT", percent(last["win_rate_vs_sft"]), None, better, note))
        measures = (
            ("helpfulness", "helpfulness", True, "the judge's mean, harmless prompts"),
            ("violation_rate", "violations", False, "of answers to adversarial prompts"),
            ("false_refusal_rate", "false refusals", False, "of answers to harmless prompts"),
        )
        for field, title, more_is_better, note in measures:
            found += _compared(title, first.get(field), last[field], more_is_better, note)
        turns = sorted(last["instruction_kept"], key=int)
        if turns:
            kept = [version["instruction_kept"].get(turns[-1]) for version in (first, last)]
            found += _compared("instruction kept", *kept, True, f"at turn {turns[-1]}")
    newest = {row["kind"]: row for row in report["reward_models"]}
    for kind, row in newest.items():
        accuracy, error = (row[name].get(kind, {}).get("all") for name in ("accuracy", "standard_error"))
        if accuracy is not None:
            note = f"agrees with annotators on held-out {kind} pairs" + (
                "" if error is None else f", ± {1.96 * error:.1%}"
            )
            found.append(Headline(f"{kind} reward model", percent(accuracy), note=note))
    for row in report["ppo"][-1:]:
        found += _compared(
            "PPO held-out reward", row["held_out_reward_before"], row["held_out_reward"], True,
            f"best at iteration {row['best_iteration']}", number,
        )  # fmt: skip
    return found


def _compared(title, first, last, more_is_better, note, shown=None) -> list[Headline]:
    if last is None:
        return []
    shown = shown or percent
    if first is None:
        return [Headline(title, shown(last), note=note)]
    better = None if first == last else (last > first) == more_is_better
    return [Headline(title, shown(last), shown(first), better, note)]


def with_chips(entry: Mapping) -> dict:
    """A sample prompt whose answers carry the judge's verdict in words."""
    return {**entry, **{side: {**entry[side], "chips": chips(entry[side])} for side in ("first", "last")}}


def chips(row: Mapping) -> list[tuple[str, str]]:
    """What a verdict says of an answer as (words, good | bad | neutral); nothing where it does not tell."""
    verdict = {
        name: float(value) for name, value in (row.get("verdict") or {}).items() if isinstance(value, int | float)
    }
    found = []
    if row.get("safety"):
        if "violation" in verdict:
            found.append(("violation", "bad") if verdict["violation"] >= 0.5 else ("no violation", "good"))
    elif "helpfulness" in verdict:
        found.append((f"helpfulness {verdict['helpfulness']:.2f}", "neutral"))
    if verdict.get("refusal", 0) >= 0.5:
        found.append(("refusal", "neutral" if row.get("safety") else "bad"))
    if "instruction_kept" in verdict:
        kept = verdict["instruction_kept"] >= 0.5
        found.append(("instruction kept", "good") if kept else ("instruction lost", "bad"))
    if row.get("finished") is False:
        found.append(("cut off", "bad"))
    return found


def times(seconds: Mapping[str, float | None]) -> dict:
    """Stages with their times and each one's share of the longest."""
    known = {name: value for name, value in seconds.items() if value is not None}
    longest = max(known.values(), default=0) or 1
    rows = [{"stage": name, "seconds": value, "share": value / longest} for name, value in known.items()]
    return {"rows": rows, "total": sum(known.values())}


def differing_settings(report: Mapping, records: Mapping[str, Mapping]) -> list[dict]:
    """For the stages that come back every round: the settings in which the rounds differ.

    Returns:
      Entries {title, rounds, rows}; a row is (field, one value a round).
    """
    groups = {
        "Annotation": report["annotations"],
        "Helpfulness reward model": [row for row in report["reward_models"] if row["kind"] == "helpfulness"],
        "Safety reward model": [row for row in report["reward_models"] if row["kind"] == "safety"],
        "Rejection sampling": report["rejection_sampling"],
    }
    tables = []
    for title, rows in groups.items():
        flat = [flattened(settings_of(row["stage"], records[row["stage"]])) for row in rows]
        fields = list(dict.fromkeys(field for settings in flat for field in settings))
        different = [
            (field, [settings.get(field, "") for settings in flat])
            for field in fields
            if field != "round" and len({settings.get(field, "") for settings in flat}) > 1
        ]
        if different:
            tables.append({"title": title, "rounds": [row["round"] for row in rows], "rows": different})
    return tables


def settings_of(name: str, record: Mapping) -> dict:
    """A stage's own part of its configuration."""
    return record.get("config", {}).get(name) or {}


def flattened(tree: object, prefix: str = "") -> dict[str, str]:
    """A tree of settings as {dotted path: value in words}."""
    if isinstance(tree, Mapping):
        return {
            path: value
            for name, branch in tree.items()
            for path, value in flattened(branch, f"{prefix}.{name}" if prefix else str(name)).items()
        }
    if isinstance(tree, Sequence) and not isinstance(tree, str):
        return {prefix: ", ".join(map(str, tree))}
    return {prefix: str(tree)}


def percent(value: float | None, digits: int = 0) -> str:
    """A share in percent; a dash for none; one decimal at least where it is small, or near to 1."""
    if value is None:
        return "–"
    if 0 < abs(value) < 0.0995 or 0.995 <= value < 1:
        digits = max(digits, 1)
    return f"{value:.{digits}%}"


def number(value: float | None, digits: int = 3) -> str:
    """A number with at most so many decimals; a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.{digits}f}"


def duration(seconds: float) -> str:
    """Seconds in the units in which one thinks of them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def words(name: str | None) -> str:
    """A field's name as words."""
    return re.sub("[_]+", " ", name or "")
