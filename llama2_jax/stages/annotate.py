"""Preference annotation (section 3.2.1): two versions answer at two temperatures, an annotator says which is better.

Writes comparisons.jsonl and comparisons_test.jsonl (held out by prompt, over all rounds), in the form of docs/data.md's
preferences with the answers' token ids next to their texts.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.content_hash import prompt_hash, uniform
from llama2_jax.data.counts import Count
from llama2_jax.data.held_out import Split, check_test_comparisons, split_by_prompt
from llama2_jax.data.records import SAFETY_LABELS
from llama2_jax.evaluation.position_bias import order_agreement, position_bias
from llama2_jax.inference.generate import Sampling
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.device_programs import LONGEST_PROMPTS, abstract_model, generation
from llama2_jax.pipeline.encoding import load_tokenizer, read_prompts
from llama2_jax.pipeline.labels import check_labels
from llama2_jax.pipeline.reward_models import annotator_scores
from llama2_jax.pipeline.runtime import Inputs, Runtime, configured_function, named_key
from llama2_jax.pipeline.sampling import load_policy, sample_resumable
from llama2_jax.pipeline.stage_files import read_all_jsonl, write_jsonl
from llama2_jax.sizing.programs import DeviceWork
from llama2_jax.text.tokenizer import Tokenizer

VERSIONS = ("newest", "earlier")


class Pair(NamedTuple):
    """Two answers to a prompt.

    Attributes:
      index: of the prompt.
      comparison: what the annotator sees.
      sides: which of its answers, "a" or "b", is each version's.
    """

    index: int
    comparison: dict
    sides: Mapping[str, str]


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Samples the pairs, has them compared, and splits them into training and test comparisons."""
    tokenizer = load_tokenizer(inputs)
    records, prompts = read_prompts(config.prompts, config.max_new_tokens, tokenizer, runtime)
    check_test_comparisons(config.test_comparisons, len(records))
    temperatures = two_temperatures(len(records), config.temperatures, runtime.seed)
    answers = _sample(config, inputs, runtime, tokenizer, prompts, temperatures)
    pairs = [
        _pair(index, record, prompt, {version: answers[version][index] for version in VERSIONS}, tokenizer, runtime)
        for index, (record, prompt) in enumerate(zip(records, prompts, strict=True))
    ]
    different = [pair for pair in pairs if not _same_answers(pair.comparison)]
    labels = _annotate(config, inputs, runtime, [pair.comparison for pair in different])
    decided = [(pair, label) for pair, label in zip(different, labels, strict=True) if label["preferred"] != "tie"]
    rows = []
    for pair, label in decided:
        row = preference(records[pair.index], pair.comparison, label)
        if row is not None:
            rows.append({**row, "round": config.round, **_origin(pair, label, inputs, temperatures[pair.index])})
    training, test = _split(rows, config.test_comparisons, inputs, runtime)
    write_jsonl(runtime.folder / "comparisons_test.jsonl", test)
    write_jsonl(runtime.folder / "comparisons.jsonl", training)
    return {
        "comparisons": len(training),
        "test_comparisons": len(test),
        "test_comparisons_wanted": config.test_comparisons,
        "identical_answers_left_out": len(records) - len(different),
        "ties_left_out": len(different) - len(decided),
        "chosen_unsafe_left_out": len(decided) - len(rows),
        "ratings": shares(row["rating"] for row in rows),
        "safety_labels": shares(row["safety_label"] for row in rows if "safety_label" in row),
        "newest_preferred": shares(row["preferred_version"] for row in rows).get("newest", 0.0),
        # Far from a half, the annotator goes by the order.
        "first_preferred": shares(row["sources"][row["preferred_version"]]["shown_as"] for row in rows).get("a", 0.0),
        "position_bias": position_bias(labels),
        "order_agreement": order_agreement(labels),
    }


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if more comparisons are held out than the prompts can give."""
    del inputs
    check_test_comparisons(config.test_comparisons, count(config.prompts))


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """Generation, by one version after the other, and the scores of an annotator that is a model."""
    version = abstract_model("version", model, mesh)
    programs = (*generation(config, model, mesh, version), *annotator_scores(config, model, mesh))
    assumptions = (LONGEST_PROMPTS, f"of the annotator {config.annotator.function} only its models are counted")
    return DeviceWork(programs, assumptions=assumptions)


def two_temperatures(count: int, temperatures: Sequence[float], seed: int) -> np.ndarray:
    """Draws two different temperatures a prompt, [count, 2]."""
    generator = np.random.default_rng(seed)
    return np.stack([generator.choice(temperatures, size=2, replace=False) for _ in range(count)])


def draw_sides(seed: int, messages: Sequence[Mapping], newest: list[int], earlier: list[int]) -> dict[str, str]:
    """Draws which version's answer is shown as "a" and which as "b".

    An annotator may prefer the answer that it sees first; always shown there, the newest version would seem better.

    Args:
      seed: the stage's.
      messages: the prompt.
      newest, earlier: the ids of the versions' answers.

    Returns:
      The side of each of VERSIONS.
    """
    newest_first = uniform("side", seed, prompt_hash(messages), newest, earlier) < 0.5
    return dict(zip(VERSIONS, ("a", "b") if newest_first else ("b", "a"), strict=True))


def preference(record: dict, comparison: dict, label: dict) -> dict | None:
    """Returns the annotator's label as a preferences row; None for "chosen unsafe, rejected safe", as in the paper."""
    chosen, rejected = ("a", "b") if label["preferred"] == "a" else ("b", "a")
    row = {
        "messages": record["messages"],
        "chosen": comparison[f"response_{chosen}"],
        "rejected": comparison[f"response_{rejected}"],
        "chosen_tokens": comparison[f"tokens_{chosen}"],
        "rejected_tokens": comparison[f"tokens_{rejected}"],
        "rating": label["rating"],
        "domain": comparison["domain"],
        "category": record.get("category", ""),
    }
    if label.get("safety"):
        safe = label["safety"][chosen], label["safety"][rejected]
        if safe == (False, True):
            return None
        row["safety_label"] = SAFETY_LABELS[safe]
    return row


def shares(values: Iterable[str]) -> dict[str, float]:
    """Returns the share of each value."""
    counts = Counter(values)
    return {value: round(count / counts.total(), 4) for value, count in sorted(counts.items())}


def _sample(
    config: ConfigDict,
    inputs: Inputs,
    runtime: Runtime,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    temperatures: np.ndarray,
) -> dict[str, list[list[int]]]:
    """Returns the ids of each version's answers, VERSIONS in order."""
    answers = {}
    for version, column in zip(VERSIONS, temperatures.T, strict=True):
        policy = load_policy(inputs[version], tokenizer, runtime)
        sampling = Sampling(tuple(column), config.top_p, config.max_new_tokens)
        key = named_key(runtime.key, version)
        rows = sample_resumable(f"{version} version", policy, prompts, sampling, key, _token_rows, runtime)
        answers[version] = [row["tokens"] for row in rows]
    return answers


def _token_rows(_: slice, samples: Sequence) -> list[dict]:
    return [{"tokens": sample.tokens.tolist()} for sample in samples]


def _annotate(config: ConfigDict, inputs: Inputs, runtime: Runtime, comparisons: Sequence[dict]) -> Sequence[Mapping]:
    labels = configured_function(config.annotator, inputs, runtime)(comparisons)
    check_labels(labels, len(comparisons), f"{runtime.stage}: the annotator {config.annotator.function}")
    return labels


def _split(rows: Sequence[dict], test_comparisons: int, inputs: Inputs, runtime: Runtime) -> Split:
    earlier = inputs.get("annotations", ())
    split = split_by_prompt(
        rows,
        test_comparisons,
        runtime.stage,
        earlier_training=read_all_jsonl(earlier, "comparisons.jsonl"),
        earlier_test=read_all_jsonl(earlier, "comparisons_test.jsonl"),
    )
    if len(split.test) != test_comparisons:
        logging.warning("%s: held out %d comparisons; wanted %d", runtime.stage, len(split.test), test_comparisons)
    return split


def _pair(
    index: int,
    record: dict,
    prompt: Sequence[int],
    answers: Mapping[str, list[int]],
    tokenizer: Tokenizer,
    runtime: Runtime,
) -> Pair:
    """Returns the answers as the annotator sees them, who is not told which version wrote which."""
    sides = draw_sides(runtime.seed, record["messages"], **answers)
    shown = {sides[version]: answers[version] for version in VERSIONS}
    comparison = {
        "messages": record["messages"],
        "prompt_tokens": list(prompt),
        **{f"response_{side}": tokenizer.decode(shown[side]) for side in ("a", "b")},
        **{f"tokens_{side}": shown[side] for side in ("a", "b")},
        # A campaign for safety may ask about harmless prompts too: its source says so by the record's domain.
        "domain": record.get("domain") or ("safety" if record["safety"] else "helpfulness"),
    }
    return Pair(index, comparison, sides)


def _origin(pair: Pair, label: Mapping, inputs: Inputs, temperatures: Sequence[float]) -> dict:
    """Returns the fields of a comparison that say where its answers come from."""
    return {
        "preferred_version": next(version for version in VERSIONS if pair.sides[version] == label["preferred"]),
        "sources": {
            version: {
                "model": inputs[version].name, "temperature": float(temperature), "shown_as": pair.sides[version],
            }
            for version, temperature in zip(VERSIONS, temperatures, strict=True)
        },
    }  # fmt: skip


def _same_answers(comparison: Mapping) -> bool:
    """Whether there is nothing to prefer: the annotator sees texts, a reward model ids."""
    return comparison["response_a"] == comparison["response_b"] or comparison["tokens_a"] == comparison["tokens_b"]
