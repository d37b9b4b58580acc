"""The measures reported for every version of the chat model, each declared once.

The evaluation stage computes those that average a field of the judge's verdicts. report.json lists all of them in this
order, and the page draws its charts, headlines and table of versions from the declarations. To report one more field of
the verdicts, add one declaration here, or name your own tuple by its dotted path in the config (`evaluation.measures`).

A prompt is seen if its record says so (`seen`: training asks its question too). Every measure is over unseen prompts,
but for those that are declared as `seen`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

# The prompts that a measure can average over; `safety` marks a prompt that asks for something unsafe.
PROMPTS: dict[str, Callable[[Mapping], bool]] = {
    "all": lambda prompt: True,
    "harmless": lambda prompt: not prompt["safety"],
    "adversarial": lambda prompt: prompt["safety"],
    "borderline": lambda prompt: prompt.get("category") == "borderline",
}
BETTER = ("higher", "lower", None)
# The page's palette; it differs between light and dark mode.
COLORS = ("helpfulness", "safety", "violation", "refusal", "policy", "muted")


@dataclasses.dataclass(frozen=True)
class Chart:
    """A line chart and the text around it.

    Attributes:
      name: identifies the chart on the page.
      title: its heading.
      caption: what it shows, in a sentence.
      source: the paper's figure, table or section that shows the same.
      y_label: the unit, where it is not a share.
      share: whether the values are shares, shown in percent.
      bottom, top: values that the y axis reaches at least.
      reference, reference_label: a value marked by a dashed line, and its label.
    """

    name: str
    title: str
    caption: str
    source: str = ""
    y_label: str = ""
    share: bool = True
    bottom: float | None = None
    top: float | None = None
    reference: float | None = None
    reference_label: str = ""


@dataclasses.dataclass(frozen=True)
class Measure:
    """A number reported for every version of the chat model.

    Attributes:
      name: its key in evaluation.json and report.json.
      title: its name.
      better: "higher", "lower", or None where neither is better.
      verdict: the field of the judge's verdicts that it averages; "" if the evaluation stage computes it otherwise.
      prompts: the prompts that it averages over, a key of PROMPTS.
      seen: whether it is over the seen prompts among them instead of the unseen ones.
      share: whether it is a share, shown in percent.
      standard_error: the key of its standard error in evaluation.json; "" if it has none.
      headline: the note below its headline; "" if it has no headline.
      in_words: whether the page says in a sentence how it changed from the first to the last version.
      by_category: whether it is reported for each category of prompts too; it has a verdict then.
      chart: the chart that shows it; None if it appears in the table only.
      color: its colour in the chart, one of COLORS.
      dashed: whether its line is dashed.

    Raises:
      ValueError: for an unknown `better`, `prompts` or `color`.
    """

    name: str
    title: str
    better: str | None = None
    verdict: str = ""
    prompts: str = "all"
    seen: bool = False
    share: bool = True
    standard_error: str = ""
    headline: str = ""
    in_words: bool = False
    by_category: bool = False
    chart: Chart | None = None
    color: str = "muted"
    dashed: bool = False

    def __post_init__(self):
        for field, known in (("better", BETTER), ("prompts", tuple(PROMPTS)), ("color", COLORS)):
            if getattr(self, field) not in known:
                raise ValueError(f"measure {self.name!r}: {field} is {getattr(self, field)!r}; expected one of {known}")

    @property
    def label(self) -> str:
        """Its name in the legend, the headline and the table."""
        return f"{self.title}, seen" if self.seen else self.title

    @property
    def keys(self) -> tuple[str, ...]:
        """Its keys in a version's row: its own and that of its standard error."""
        return (self.name, self.standard_error) if self.standard_error else (self.name,)

    def is_over(self, prompt: Mapping) -> bool:
        """Whether a prompt is one of those that it averages over."""
        return PROMPTS[self.prompts](prompt) and bool(prompt.get("seen")) == self.seen


HELPFULNESS = Chart(
    "helpfulness",
    "Helpfulness",
    "Mean helpfulness of the answers to harmless prompts, according to the judge; dashed: on seen prompts, if any.",
    source="compare figure 11",
)
PARTS = Chart(
    "parts",
    "Content and style",
    "The parts of helpfulness: what is right of what was asked, and how it is said; dashed: on seen prompts, if any.",
)
HARM = Chart(
    "harm",
    "Violations and false refusals",
    "Violating answers to adversarial prompts, and refusals of harmless prompts.",
    source="figures 17 and 33",
    bottom=0.0,
)
WIN_RATE = Chart(
    "win_rate",
    "Wins over SFT",
    "Share of prompts where the judge prefers a version's answer to SFT's, ties left out, with 95% intervals.",
    source="figures 1 and 11",
    bottom=0.45,
    reference=0.5,
    reference_label="as good as SFT",
)
SCORES = Chart(
    "scores",
    "Reward model scores",
    "Mean scores by the newest reward models, to compare with the judge's verdicts; dashed: on harmless prompts, by "
    "a general reward model, which no version was trained for. Where the others rise and it falls, they are exploited.",
    source="section 3.4.1",
    y_label="mean score (logit)",
    share=False,
)

MEASURES = (
    Measure("helpfulness", "helpfulness", "higher", verdict="helpfulness", prompts="harmless",
            headline="mean on harmless prompts, according to the judge", in_words=True, by_category=True,
            chart=HELPFULNESS, color="helpfulness"),
    Measure("content", "content", "higher", verdict="content", prompts="harmless",
            headline="share of what was asked for that is right, on harmless prompts", in_words=True, by_category=True,
            chart=PARTS, color="helpfulness"),
    Measure("right", "wholly right", "higher", verdict="right", prompts="harmless",
            headline="of answers to harmless prompts", in_words=True, by_category=True, chart=PARTS, color="safety"),
    Measure("style", "style", "higher", verdict="style", prompts="harmless",
            headline="share of a well-formed answer's parts, on harmless prompts", in_words=True, by_category=True,
            chart=PARTS, color="policy"),
    Measure("safety", "safety", "higher", verdict="safety", prompts="adversarial"),
    Measure("violation_rate", "violations", "lower", verdict="violation", prompts="adversarial",
            headline="of answers to adversarial prompts", by_category=True, chart=HARM, color="violation"),
    Measure("false_refusal_rate", "false refusals", "lower", verdict="refusal", prompts="harmless",
            headline="of answers to harmless prompts", by_category=True, chart=HARM, color="refusal"),
    Measure("borderline_refusal_rate", "borderline refusals", "lower", verdict="refusal", prompts="borderline",
            chart=HARM, color="refusal", dashed=True),
    Measure("win_rate_vs_sft", "wins over SFT", "higher", standard_error="win_rate_standard_error",
            headline="ties left out", chart=WIN_RATE, color="policy"),
    Measure("helpfulness_win_rate_vs_sft", "wins on helpfulness", "higher", chart=WIN_RATE, color="helpfulness",
            dashed=True),
    Measure("safety_win_rate_vs_sft", "wins on safety", "higher", chart=WIN_RATE, color="safety", dashed=True),
    Measure("win_rate_vs_previous", "wins over the version before", "higher",
            standard_error="win_rate_vs_previous_standard_error"),
    Measure("reward_helpfulness", "helpfulness reward", "higher", share=False, chart=SCORES, color="helpfulness"),
    Measure("reward_safety", "safety reward", "higher", share=False, chart=SCORES, color="safety"),
    Measure("reward_general", "general reward", "higher", prompts="harmless", share=False,
            standard_error="reward_general_standard_error", chart=SCORES, color="policy", dashed=True),
    Measure("answer_tokens", "tokens per answer", share=False),
    Measure("seen_helpfulness", "helpfulness", "higher", verdict="helpfulness", prompts="harmless", seen=True,
            in_words=True, chart=HELPFULNESS, color="helpfulness", dashed=True),
    Measure("seen_content", "content", "higher", verdict="content", prompts="harmless", seen=True, in_words=True,
            chart=PARTS, color="helpfulness", dashed=True),
    Measure("seen_right", "wholly right", "higher", verdict="right", prompts="harmless", seen=True, in_words=True,
            chart=PARTS, color="safety", dashed=True),
    Measure("seen_style", "style", "higher", verdict="style", prompts="harmless", seen=True, in_words=True,
            chart=PARTS, color="policy", dashed=True),
    Measure("seen_violation_rate", "violations", "lower", verdict="violation", prompts="adversarial", seen=True),
    Measure("seen_false_refusal_rate", "false refusals", "lower", verdict="refusal", prompts="harmless",
            seen=True),
    Measure("seen_win_rate_vs_sft", "wins over SFT", "higher", seen=True),
)  # fmt: skip
# For versions that do not come one after the other, of which none is SFT.
WITHOUT_WIN_RATES = tuple(measure for measure in MEASURES if "win_rate" not in measure.name)
# For an evaluation without reward models (stages/judged_answers.py).
OF_A_JUDGE = tuple(measure for measure in WITHOUT_WIN_RATES if "reward" not in measure.name)


def charts_of(measures: Iterable[Measure]) -> list[Chart]:
    """The charts that show the measures, each once, in the order of the declarations."""
    return list(dict.fromkeys(measure.chart for measure in measures if measure.chart))


def to_json(measures: Iterable[Measure]) -> list[dict]:
    """The declarations as evaluation.json stores them."""
    return [dataclasses.asdict(measure) for measure in measures]


def from_json(rows: Sequence[Mapping]) -> tuple[Measure, ...]:
    """The declarations stored in evaluation.json."""
    return tuple(Measure(**{**row, "chart": Chart(**row["chart"]) if row["chart"] else None}) for row in rows)
