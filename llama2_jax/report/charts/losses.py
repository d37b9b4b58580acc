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
    finetuning = [
        Series(row["stage"].replace("_", " "), shade(index, len(tuned)), *_points(row), marker=None)
        for index, row in enumerate(tuned)
    ]
    return {
        "pretraining_loss": line_chart(
            "pretraining_loss", pretraining, XAxis("million tokens"), YAxis("nats per token")
        ),
        "finetuning_loss": line_chart("finetuning_loss", finetuning, XAxis("step"), YAxis("nats per answer token")),
    }


def _pretraining(row: Mapping) -> list[Series]:
    steps, losses = _points(row)
    tokens = [step * row["tokens_per_step"] / 1e6 for step in steps]
    lines = [Series("training", COLORS["policy"], tokens, losses, marker=None)]
    if tokens and row["held_out_loss"] is not None:
        lines.append(Series("held out, at the end", COLORS["helpfulness"], tokens[-1:], [row["held_out_loss"]]))
    return lines


def _points(row: Mapping) -> tuple[list[float], list[float]]:
    return [step for step, _ in row["loss"]], [loss for _, loss in row["loss"]]
