"""Versions' answers compared pair by pair, by judges that see both (sections 3.4.1, 3.4.2 and 4.4, figures 11 and 12).

The answers are those of a finished evaluation. A judge is any annotator of comparisons: the raters of the miniature,
reward models, or a language model behind an address, which is asked in both orders (annotation/chat_api.py). How well
several judges agree beyond chance is Gwet's AC2, as the paper has it for people.

Writes head_to_head.json and judged_<judge>_<version>_<other>.jsonl.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.content_hash import prompt_hash, uniform
from llama2_jax.data.counts import Count
from llama2_jax.evaluation.head_to_head import by_group, judges_agreement, outcome
from llama2_jax.evaluation.position_bias import order_agreement, position_bias
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.labels import check_labels
from llama2_jax.pipeline.reward_models import annotator_scores
from llama2_jax.pipeline.runtime import Inputs, Runtime, configured_function
from llama2_jax.pipeline.stage_files import read_jsonl, write_json, write_jsonl
from llama2_jax.sizing.programs import DeviceWork


@dataclasses.dataclass(frozen=True)
class _Comparison:
    """Two versions' answers to the same prompts, as the evaluation wrote them."""

    version: str
    other: str
    ours: Sequence[dict]
    theirs: Sequence[dict]

    def different(self) -> list[int]:
        """The places of the pairs that a judge is asked about: what is the same text has no better side."""
        pairs = zip(self.ours, self.theirs, strict=True)
        return [index for index, (row, other) in enumerate(pairs) if row["response"] != other["response"]]


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Each judge compares each version with the baseline, and with the version before it."""
    answers = {name: read_answers(inputs["evaluation"], name) for name in config.versions}
    pairs = [
        (ours, theirs)
        for index, ours in enumerate(config.versions)
        for theirs in dict.fromkeys((config.baseline, *config.versions[max(0, index - 1) : index]))
        if theirs != ours
    ]
    judges = {name: configured_function(judge, inputs, runtime) for name, judge in config.judges.items()}
    found, agreement = [], []
    for ours, theirs in pairs:
        comparison = _Comparison(ours, theirs, answers[ours], answers[theirs])
        rows, agreed = _compare(comparison, judges, runtime)
        found += rows
        agreement += [agreed] if len(judges) > 1 else []
    write_json(runtime.folder / "head_to_head.json", {"pairs": found, "agreement": agreement})
    named = ("judge", "version", "over")
    return {
        "pairs": [{**row["prompts"]["all"], **{name: row[name] for name in named}} for row in found],
        "agreement": agreement,
    }


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if the baseline is none of the versions, or there is no judge."""
    del inputs, count
    if not config.judges:
        raise ValueError("judges={}: name at least one, with the function that annotates comparisons")
    if config.baseline not in config.versions:
        raise ValueError(f"baseline={config.baseline!r}: choose one of the versions, {', '.join(config.versions)}")


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """The scores of judges that are models."""
    named = ", ".join(judge.function for judge in config.judges.values())
    assumptions = (f"of the judges {named} only their models are counted",)
    return DeviceWork(tuple(annotator_scores(config, model, mesh)), assumptions=assumptions)


def read_answers(evaluation: epath.Path, version: str) -> list[dict]:
    """Returns a version's answers in an evaluation.

    Raises:
      ValueError: if it has none.
    """
    path = evaluation / f"answers_{version}.jsonl"
    if not path.exists():
        there = sorted(one.name[len("answers_") : -len(".jsonl")] for one in evaluation.glob("answers_*.jsonl"))
        raise ValueError(f"{evaluation} has no answers of {version!r}; it has those of {', '.join(there) or 'none'}")
    return read_jsonl(path)


def _compare(comparison: _Comparison, judges: Mapping[str, Callable], runtime: Runtime) -> tuple[list[dict], dict]:
    """Returns what each judge says of two versions, and how far the judges agree."""
    of_pair = {"version": comparison.version, "over": comparison.other}
    rows, outcomes = [], {}
    for name, judge in judges.items():
        labels, sides = _judged(comparison, judge, f"{runtime.stage}: the judge {name}", runtime.seed)
        outcomes[name] = [outcome(label, side) for label, side in zip(labels, sides, strict=True)]
        file = f"judged_{name}_{comparison.version}_{comparison.other}.jsonl"
        write_jsonl(runtime.folder / file, _judged_rows(comparison, labels, sides, outcomes[name]))
        rows.append({
            "judge": name,
            **of_pair,
            "position_bias": position_bias(labels),
            "order_agreement": order_agreement(labels),
            **by_group(outcomes[name], comparison.ours, comparison.theirs),
        })  # fmt: skip
    # On what they were asked: of the same text none was.
    asked = comparison.different()
    judged = {name: [of_all[index] for index in asked] for name, of_all in outcomes.items()}
    return rows, {**of_pair, "pairs": len(asked), **judges_agreement(judged)}


def _judged(comparison: _Comparison, judge: Callable, judge_name: str, seed: int) -> tuple[list[Mapping], list[str]]:
    """Returns the labels of all pairs, and on which side our answer was shown, drawn by what the pair says."""
    pairs = list(zip(comparison.ours, comparison.theirs, strict=True))
    sides = [_side(seed, row, other) for row, other in pairs]
    shown = [_shown(row, other, side) for (row, other), side in zip(pairs, sides, strict=True)]
    different = comparison.different()
    known = judge([shown[index] for index in different]) if different else []
    check_labels(known, len(different), judge_name)
    labels: list[Mapping] = [{"preferred": "tie"} for _ in shown]
    for index, label in zip(different, known, strict=True):
        labels[index] = label
    return labels, sides


def _judged_rows(
    comparison: _Comparison, labels: Sequence[Mapping], sides: Sequence[str], outcomes: Sequence[str]
) -> list[dict]:
    return [
        {
            "messages": row["messages"], "ours": row["response"], "theirs": other["response"],
            "shown_as": side, "outcome": one, "label": label,
        }
        for row, other, side, one, label in zip(
            comparison.ours, comparison.theirs, sides, outcomes, labels, strict=True
        )
    ]  # fmt: skip


def _side(seed: int, ours: Mapping, theirs: Mapping) -> str:
    drawn = uniform("side", seed, prompt_hash(ours["messages"]), ours["response"], theirs["response"])
    return "a" if drawn < 0.5 else "b"


def _shown(ours: Mapping, theirs: Mapping, side: str) -> dict:
    """The comparison that a judge gets, with our answer on a side."""
    shown = {side: ours, "b" if side == "a" else "a": theirs}
    return {
        "messages": ours["messages"],
        "prompt_tokens": ours["tokens"][: -ours["answer_tokens"]],
        **{f"response_{one}": row["response"] for one, row in shown.items()},
        **{f"tokens_{one}": row["tokens"][-row["answer_tokens"] :] for one, row in shown.items()},
        **{f"rewards_{one}": row.get("rewards") for one, row in shown.items()},
        "domain": "safety" if ours.get("safety") else "helpfulness",
    }
