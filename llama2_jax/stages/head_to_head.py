"""Versions' answers compared pair by pair, by a judge that sees both (sections 3.4.2 and 4.4, figure 12).

The answers are those of a finished evaluation. The judge is any annotator of comparisons: the raters of the miniature,
reward models, or a language model behind an address, which is asked in both orders (annotation/chat_api.py).

Writes head_to_head.json and judged_<version>_<other>.jsonl.
"""

from collections.abc import Mapping, Sequence

from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.content_hash import prompt_hash, uniform
from llama2_jax.data.counts import Count
from llama2_jax.evaluation.head_to_head import by_group, outcome
from llama2_jax.evaluation.position_bias import order_agreement, position_bias
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.labels import check_labels
from llama2_jax.pipeline.reward_models import annotator_scores
from llama2_jax.pipeline.runtime import Inputs, Runtime, configured_function
from llama2_jax.pipeline.stage_files import read_jsonl, write_json, write_jsonl
from llama2_jax.sizing.programs import DeviceWork


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Compares each version with the baseline, and with the version before it."""
    answers = {name: read_answers(inputs["evaluation"], name) for name in config.versions}
    pairs = [
        (ours, theirs)
        for index, ours in enumerate(config.versions)
        for theirs in dict.fromkeys((config.baseline, *config.versions[max(0, index - 1) : index]))
        if theirs != ours
    ]
    judge = configured_function(config.judge, inputs, runtime)
    found = []
    for ours, theirs in pairs:
        labels, sides = _judged(answers[ours], answers[theirs], judge, config, runtime)
        outcomes = [outcome(label, side) for label, side in zip(labels, sides, strict=True)]
        write_jsonl(
            runtime.folder / f"judged_{ours}_{theirs}.jsonl",
            [
                {
                    "messages": row["messages"], "ours": row["response"], "theirs": other["response"],
                    "shown_as": side, "outcome": one, "label": label,
                }
                for row, other, side, one, label in zip(
                    answers[ours], answers[theirs], sides, outcomes, labels, strict=True
                )
            ],
        )  # fmt: skip
        found.append({
            "version": ours,
            "over": theirs,
            "position_bias": position_bias(labels),
            "order_agreement": order_agreement(labels),
            **by_group(outcomes, answers[ours], answers[theirs]),
        })  # fmt: skip
    write_json(runtime.folder / "head_to_head.json", {"pairs": found})
    return {"pairs": [{**row["prompts"]["all"], "version": row["version"], "over": row["over"]} for row in found]}


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if the baseline is none of the versions."""
    del inputs, count
    if config.baseline not in config.versions:
        raise ValueError(f"baseline={config.baseline!r}: choose one of the versions, {', '.join(config.versions)}")


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """The scores of a judge that is a model."""
    assumptions = (f"of the judge {config.judge.function} only its models are counted",)
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


def _judged(
    ours: Sequence[dict], theirs: Sequence[dict], judge, config: ConfigDict, runtime: Runtime
) -> tuple[list[Mapping], list[str]]:
    """Returns the labels of all pairs, and on which side our answer was shown, drawn by what the pair says."""
    sides = [_side(runtime.seed, row, other) for row, other in zip(ours, theirs, strict=True)]
    comparisons = [_comparison(row, other, side) for row, other, side in zip(ours, theirs, sides, strict=True)]
    # What is the same text has no better side.
    different = [index for index, one in enumerate(comparisons) if one["response_a"] != one["response_b"]]
    known = judge([comparisons[index] for index in different]) if different else []
    check_labels(known, len(different), f"{runtime.stage}: the judge {config.judge.function}")
    labels: list[Mapping] = [{"preferred": "tie"} for _ in comparisons]
    for index, label in zip(different, known, strict=True):
        labels[index] = label
    return labels, sides


def _side(seed: int, ours: Mapping, theirs: Mapping) -> str:
    drawn = uniform("side", seed, prompt_hash(ours["messages"]), ours["response"], theirs["response"])
    return "a" if drawn < 0.5 else "b"


def _comparison(ours: Mapping, theirs: Mapping, side: str) -> dict:
    shown = {side: ours, "b" if side == "a" else "a": theirs}
    return {
        "messages": ours["messages"],
        "prompt_tokens": ours["tokens"][: -ours["answer_tokens"]],
        **{f"response_{one}": row["response"] for one, row in shown.items()},
        **{f"tokens_{one}": row["tokens"][-row["answer_tokens"] :] for one, row in shown.items()},
        "domain": "safety" if ours.get("safety") else "helpfulness",
    }
