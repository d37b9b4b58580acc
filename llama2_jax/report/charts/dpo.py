"""Charts of direct preference optimisation: how often its implicit reward is right, and how both answers fare."""

from collections.abc import Mapping, Sequence

from llama2_jax.report.plots import Series, XAxis, YAxis, line_chart
from llama2_jax.report.svg import shade

# What report.json has of a training's metrics.jsonl.
CURVES = (
    "loss", "accuracy", "held_out_loss", "held_out_accuracy", "held_out_chosen_reward", "held_out_rejected_reward",
)  # fmt: skip


def dpo_charts(rows: Sequence[Mapping]) -> dict[str, str | None]:
    """Returns the charts by name, one colour for each training.

    Args:
      rows: dpo in report.json.
    """
    accuracies, rewards = [], []
    for index, row in enumerate(rows):
        color, name, curves = shade(index, len(rows)), row["stage"].replace("_", " "), row["curves"]
        accuracies += _line(name, color, curves.get("held_out_accuracy"))
        rewards += _line(f"{name}, chosen", color, curves.get("held_out_chosen_reward"))
        rewards += _line(f"{name}, rejected", color, curves.get("held_out_rejected_reward"), dashed=True)
    step = XAxis("step", integers=True)
    return {
        "dpo_accuracy": line_chart(
            "dpo_accuracy", accuracies, step, YAxis(share=True, bottom=0.4, top=1.0, reference=(0.5, "chance"))
        ),
        "dpo_rewards": line_chart("dpo_rewards", rewards, step, YAxis("implicit reward")),
    }


def _line(name: str, color: str, curve: Sequence[Sequence[float]] | None, dashed: bool = False) -> list[Series]:
    if not curve:
        return []
    return [Series(name, color, [step for step, _ in curve], [value for _, value in curve], dashed=dashed)]
