"""Charts of the losses of pretraining and fine-tuning."""

from collections.abc import Mapping, Sequence

from llama2_jax.report.plots import Series, XAxis, YAxis, line_chart
from llama2_jax.report.svg import COLORS, shade


def loss_charts(rows: Sequence[Mapping]) -> dict[str, str | None]:
    """Returns the charts of pretraining, over tokens, and of fine-tuning, over steps.

    Args:
      rows: training in report.json; pretraining is what has a number of tokens per step.
    """
    pretraining = [line for row in rows if row["tokens_per_step"] for line in _pretraining(row)]
    tuned = [row for row in rows if not row["tokens_per_step"]]
    finetuning = [line for index, row in enumerate(tuned) for line in _finetuning(row, shade(index, len(tuned)))]
    return {
        "pretraining_loss": line_chart(
            "pretraining_loss", pretraining, XAxis("million tokens"), YAxis("nats per token")
        ),
        "finetuning_loss": line_chart("finetuning_loss", finetuning, XAxis("step"), YAxis("nats per answer token")),
    }


def _pretraining(row: Mapping) -> list[Series]:
    lines = [Series("training", COLORS["policy"], *_points(row["loss"], row["tokens_per_step"] / 1e6), marker=None)]
    if row["held_out"]:
        points = _points(row["held_out"], row["tokens_per_step"] / 1e6)
        lines.append(Series("held out", COLORS["helpfulness"], *points))
    return lines


def _finetuning(row: Mapping, color: str) -> list[Series]:
    lines = [Series(row["stage"].replace("_", " "), color, *_points(row["loss"]), marker=None)]
    if row["held_out"]:
        lines.append(Series("_held out", color, *_points(row["held_out"]), dashed=True))
    return lines


def _points(curve: Sequence[Sequence[float]], unit: float = 1.0) -> tuple[list[float], list[float]]:
    """Returns the places, each a step's number times the unit, and the losses."""
    return [step * unit for step, _ in curve], [loss for _, loss in curve]
