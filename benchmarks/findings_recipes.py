"""What the tables of findings read of the other recipes' reports: versions, and how far two of them are apart.

Seeds differ by more than versions of one seed do, so that a difference has an interval of its own.
"""

from collections.abc import Callable, Mapping

from benchmarks.findings_plots import Rows

# Of a version's answers to unseen prompts, and the columns' names.
MEASURES = {
    "helpfulness": "helpfulness",
    "content": "content",
    "right": "wholly right",
    "style": "style",
    "violation_rate": "violations",
    "false_refusal_rate": "false refusals",
}
IMITATED = {"tone": "tone", "overlap": "overlap of words", "as_long": "as long"}

_REJECTION_SAMPLING = "rlhf_v5_rejection_sampling"
# By page, of which of its versions the first less the second is shown.
COMPARED = {
    "lima": (
        ("lima", "unfiltered"), ("lima_fourfold", "lima"), ("unfiltered", "unfiltered_few"), ("lima", "one_kind"),
    ),
    "vicuna": (("all_turns", "last_turn"),),
    "koala": (("koala", "koala_unhelpful"),),
    "orca": (("orca", "bare"), ("orca", "orca_first"), ("orca", "stronger_alone")),
    "alpaca": (("alpaca", "seed_tasks"), ("alpaca", "demonstrations")),
    "imitation": (
        ("broad_6400", "broad_400"), ("targeted_1600", "targeted_400"), ("targeted_1600", "broad_1600"),
    ),
    "instructgpt": (("instructgpt", "instructgpt_without_ptx"), ("rlhf_v5", "instructgpt")),
    "dpo": (("sft_dpo", "rlhf_v5"), ("rejection_sampling_dpo", "rlhf_v5")),
    "best_of_n": (("sft_best_of_16", "rlhf_v5"), (f"{_REJECTION_SAMPLING}_best_of_16", "rlhf_v5")),
    "grpo": (("grpo", _REJECTION_SAMPLING), ("rlhf_v5", _REJECTION_SAMPLING), ("grpo", "rlhf_v5")),
}  # fmt: skip


def versions(page: str) -> Callable[[Mapping], Rows]:
    """Returns rows of every version's measures, then how far those that the page compares are apart."""
    return lambda report: _with_differences(_measured(report), page)


def of_steps(report: Mapping) -> Rows:
    """Orca: the share of right answers to questions of the kind that was taught, and of another kind."""
    found = {row["name"]: _by_category(row, "right", ("three_numbers", "unseen")) for row in report["versions"]}
    return _with_differences(found, "orca")


def of_imitations(report: Mapping) -> Rows:
    """Imitation: style, and the share of right facts and sums."""
    found = {
        row["name"]: [*(row.get(name) for name in IMITATED), *_by_category(row, "right", ("fact", "arithmetic"))]
        for row in report["versions"]
    }
    return _with_differences(found, "imitation")


def of_releases(report: Mapping) -> Rows:
    """GPT4All: the perplexity of each release, how much above the whole model's it is, and right answers."""
    right = {row["name"]: row.get("right") for row in report["versions"]}
    for row in report["perplexity"]:
        yield row["version"], [row["perplexity"], row["difference"], right.get(row["version"])]


def of_texts(report: Mapping) -> Rows:
    """InstructGPT: the loss of each version on text that pretraining held out."""
    for row in report["text_loss"]:
        yield row["version"], [row["held_out_loss"]]


def of_epochs(report: Mapping) -> Rows:
    """LIMA: the epoch with the lowest loss on held-out prompts, that with the best answers, and what it loses."""
    for row in report["checkpoint_choices"]:
        lowest = min(row["epochs"], key=lambda epoch: epoch["loss"])
        best = max(row["epochs"], key=lambda epoch: epoch["quality"])
        yield row["stage"], [lowest["epoch"], best["epoch"], best["quality"] - lowest["quality"]]


def _measured(report: Mapping) -> dict[str, list]:
    return {row["name"]: [row.get(name) for name in MEASURES] for row in report["versions"]}


def _by_category(row: Mapping, measure: str, names: tuple[str, ...]) -> list:
    return [row["categories"].get(name, {}).get(measure) for name in names]


def _with_differences(found: Mapping[str, list], page: str) -> Rows:
    yield from found.items()
    for first, second in COMPARED[page]:
        if first in found and second in found:
            both = zip(found[first], found[second], strict=True)
            yield f"{first} less {second}", [None if None in pair else pair[0] - pair[1] for pair in both]


_OF_VERSIONS = tuple(MEASURES.values())
_OF_EPOCHS = ("lowest loss", "best answers", "quality that the lowest loss misses")
_OF_IMITATIONS = (*IMITATED.values(), "facts right", "sums right")
# As FINDINGS of benchmarks/findings.py.
RECIPES = (
    ("LIMA: few good examples and many poor ones", "lima", _OF_VERSIONS, versions("lima")),
    ("LIMA: the epoch to keep", "lima", _OF_EPOCHS, of_epochs),
    ("Vicuna: the loss on all answers", "vicuna", _OF_VERSIONS, versions("vicuna")),
    ("Koala: the marker", "koala", _OF_VERSIONS, versions("koala")),
    ("Orca: explanations on several steps", "orca", ("taught: right", "not taught: right"), of_steps),
    ("Alpaca: tasks that the base model writes", "alpaca", _OF_VERSIONS, versions("alpaca")),
    ("GPT4All: adapters and few bits", "gpt4all", ("perplexity", "above all parameters'", "wholly right"), of_releases),
    ("Imitation: style and facts", "imitation", _OF_IMITATIONS, of_imitations),
    ("InstructGPT beside V5", "instructgpt", _OF_VERSIONS, versions("instructgpt")),
    ("InstructGPT: pretraining's held-out text", "instructgpt", ("loss",), of_texts),
    ("DPO on the same comparisons", "dpo", _OF_VERSIONS, versions("dpo")),
    ("Best of N with the same reward models", "best_of_n", _OF_VERSIONS, versions("best_of_n")),
    ("GRPO in the place of PPO", "grpo", _OF_VERSIONS, versions("grpo")),
)
