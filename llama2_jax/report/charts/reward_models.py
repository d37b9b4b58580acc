"""Charts of the reward models' accuracy: by rating in the newest round, and over the rounds."""

from collections.abc import Mapping, Sequence

from llama2_jax.data.records import DOMAINS, RATINGS
from llama2_jax.evaluation.reward_accuracy import GROUPS
from llama2_jax.report.formatting import half_interval
from llama2_jax.report.plots import Series, XAxis, YAxis, line_chart
from llama2_jax.report.svg import COLORS, MUTED

ACCURACY = YAxis(share=True, bottom=0.4, top=1.0, reference=(0.5, "chance"))


def newest_round(rows: Sequence[Mapping]) -> list[Mapping]:
    """Returns the reward models of the newest round."""
    return [row for row in rows if row["round"] == rows[-1]["round"]]


def reward_model_charts(rows: Sequence[Mapping]) -> dict[str, str | None]:
    """Returns the charts by name.

    Args:
      rows: the reward models of report.json, sorted by round.
    """
    newest = newest_round(rows)
    rounds = None
    if len({row["round"] for row in rows}) > 1:
        series = [line for kind in DOMAINS for line in _over_rounds(rows, kind)]
        rounds = line_chart("accuracy_rounds", series, XAxis("round", integers=True), ACCURACY)
    return {**{f"accuracy_{domain}": _by_rating(newest, domain) for domain in DOMAINS}, "accuracy_rounds": rounds}


def _by_rating(rows: Sequence[Mapping], domain: str) -> str | None:
    # A gap before "all", which does not continue the scale of ratings.
    columns = [*enumerate(RATINGS), (len(RATINGS) - 0.5, None), (len(RATINGS), "all")]
    series = [
        Series(
            f"{row['kind']} model",
            COLORS.get(row["kind"], MUTED),
            [place + shift for place, _ in columns],
            [row["accuracy"][domain].get(name) for _, name in columns],
            [half_interval(row["standard_error"][domain].get(name)) for _, name in columns],
        )
        for row, shift in zip(rows, _shifts(len(rows)), strict=True)
    ]
    names = [name.replace("_better", "\nbetter") for name in GROUPS]
    return line_chart(f"accuracy_{domain}", series, XAxis(names=names), ACCURACY)


def _shifts(count: int) -> list[float]:
    """Returns small shifts to both sides, so that intervals at the same place do not overlap."""
    return [0.08 * (2 * index - count + 1) for index in range(count)]


def _over_rounds(rows: Sequence[Mapping], kind: str) -> list[Series]:
    own, color = [row for row in rows if row["kind"] == kind], COLORS[kind]
    rounds = [row["round"] for row in own]
    surest, all_pairs = ([row["accuracy"][kind][name] for row in own] for name in (RATINGS[0], "all"))
    error = [half_interval(row["standard_error"][kind]["all"]) for row in own]
    return [
        Series(f"_{kind}", color, rounds, surest, dashed=True, marker="."),
        Series(f"{kind} model", color, rounds, all_pairs, error),
    ]
