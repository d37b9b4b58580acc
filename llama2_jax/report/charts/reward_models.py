"""Charts of the reward models' accuracy: by rating in the newest round, over the rounds, and over amounts of data."""

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
        series = [line for kind in DOMAINS for line in _accuracies(rows, kind, [row["round"] for row in rows])]
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


def scaling_chart(rows: Sequence[Mapping]) -> str | None:
    """Returns the accuracy of reward models over the part of the prompts that they were trained on (figure 6).

    Args:
      rows: reward_scaling in report.json.
    """
    fractions = sorted({row["prompt_fraction"] for row in rows})
    places = [fractions.index(row["prompt_fraction"]) for row in rows]
    series = [line for kind in DOMAINS for line in _accuracies(rows, kind, places)]
    return line_chart(
        "reward_scaling", series, XAxis("part of the prompts", names=[*map(as_part, fractions)]), ACCURACY
    )


def as_part(fraction: float) -> str:
    """Returns 0.125 as 1/8, and what is no such part of the whole as a number."""
    inverse = 1 / fraction
    return "all" if fraction == 1 else f"1/{inverse:.0f}" if inverse == round(inverse) else f"{fraction:g}"


def _accuracies(rows: Sequence[Mapping], kind: str, places: Sequence[float]) -> list[Series]:
    """Returns the accuracy of a kind's models on its own domain, at each row's place on the x axis."""
    own = sorted(((place, row) for place, row in zip(places, rows, strict=True) if row["kind"] == kind), key=_place)
    x, color = [place for place, _ in own], COLORS[kind]
    surest, all_pairs = ([row["accuracy"][kind][name] for _, row in own] for name in (RATINGS[0], "all"))
    error = [half_interval(row["standard_error"][kind]["all"]) for _, row in own]
    return [
        Series(f"_{kind}", color, x, surest, dashed=True, marker="."),
        Series(f"{kind} model", color, x, all_pairs, error),
    ]


def _place(placed: tuple[float, Mapping]) -> float:
    return placed[0]
