"""PPO's curves, each declared once: report.json lists all of them, and the page draws those that have a chart."""

import dataclasses
from collections.abc import Mapping, Sequence

from llama2_jax.evaluation.measures import Chart
from llama2_jax.report.plots import Series, XAxis, declared_chart
from llama2_jax.report.svg import COLORS


@dataclasses.dataclass(frozen=True)
class Curve:
    """A measure of PPO's metrics.jsonl.

    Attributes:
      name: its key in metrics.jsonl and report.json.
      label: its name in the legend.
      color: one of measures.COLORS.
      chart: the chart that shows it; None if it is in report.json only.
      marker: Matplotlib's marker, for a curve of few points.
    """

    name: str
    label: str = ""
    color: str = "muted"
    chart: Chart | None = None
    marker: str | None = None


REWARD = Chart(
    "ppo_reward",
    "Reward",
    "Mean combined reward of the sampled answers, and of answers to held-out prompts, by which the policy is chosen.",
    source="section 3.2.3",
    y_label="reward",
    share=False,
)
GENERAL = Chart(
    "ppo_general",
    "General reward",
    "Mean score of answers to the harmless held-out prompts by the general reward model, which nothing is trained for.",
    source="section 3.4.1",
    y_label="mean score (logit)",
    share=False,
)
KL = Chart(
    "ppo_kl",
    "KL from the initial policy",
    "KL divergence from the initial policy, summed over an answer's tokens.",
    source="equation 4",
    y_label="nats per answer",
    share=False,
)
CLIP = Chart(
    "ppo_clip",
    "Clipping",
    "Share of tokens whose probability ratio left the clipping range.",
    source="section 3.2.3",
    bottom=0.0,
)
FINISHED = Chart(
    "ppo_finished",
    "Finished answers",
    "Share of sampled answers that end with the end-of-sequence token.",
    source="section 3.2.3",
    top=1.0,
)

CURVES = (
    Curve("reward", "sampled batch", "policy", REWARD),
    Curve("held_out_reward", "held-out prompts", "helpfulness", REWARD, marker="o"),
    Curve("held_out_general_reward", "harmless held-out prompts", "helpfulness", GENERAL, marker="o"),
    Curve("kl", "KL", "violation", KL),
    Curve("policy_clip_fraction", "clipped", "refusal", CLIP),
    Curve("finished", "finished answers", "safety", FINISHED),
    Curve("answer_tokens"),
    Curve("explained_variance"),
    Curve("equal_groups"),
    Curve("policy_reference_kl"),
    Curve("policy_pretraining_loss"),
)
CHARTS = tuple(dict.fromkeys(curve.chart for curve in CURVES if curve.chart))


def ppo_charts(rows: Sequence[Mapping]) -> dict[str, str | None]:
    """Returns the charts of the last PPO stage by name.

    Args:
      rows: PPO in report.json.
    """
    points = rows[-1]["curves"] if rows else {}
    return {
        chart.name: declared_chart(
            chart,
            [_line(curve, points.get(curve.name) or []) for curve in CURVES if curve.chart == chart],
            XAxis("iteration", integers=True),
        )
        for chart in CHARTS
    }


def _line(curve: Curve, points: Sequence[Sequence[float]]) -> Series:
    steps, values = [step for step, _ in points], [value for _, value in points]
    return Series(curve.label, COLORS[curve.color], steps, values, marker=curve.marker)
