"""Preference annotation (section 3.2.1): two versions answer at two temperatures, an annotator says which is better.

Writes comparisons.jsonl and comparisons_test.jsonl (held out by prompt), in the form of docs/data.md's preferences with
the answers' token ids next to their texts.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.data.records import SAFETY_LABELS
from llama2_jax.inference.generate import Sampling
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.device_programs import LONGEST_PROMPTS, abstract_model, generation
from llama2_jax.pipeline.encoding import load_tokenizer, read_prompts
from llama2_jax.pipeline.reward_models import annotator_scores
from llama2_jax.pipeline.runtime import Inputs, Runtime, configured_function, named_key
from llama2_jax.pipeline.sampling import load_policy, sample_resumable
from llama2_jax.pipeline.stage_files import write_jsonl
from llama2_jax.sizing.programs import DeviceWork
from llama2_jax.text.tokenizer import Tokenizer

VERSIONS = ("newest", "earlier")


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Samples the pairs, has them compared, and splits them into training and test comparisons."""
    tokenizer = load_tokenizer(inputs)
    records, prompts = read_prompts(config.prompts, config.max_new_tokens, tokenizer, runtime)
    temperatures = two_temperatures(len(records), config.temperatures, runtime.seed)
    answers = {}
    for version, column in zip(VERSIONS, temperatures.T, strict=True):
        policy = load_policy(inputs[version], tokenizer, runtime)
        sampling = Sampling(tuple(column), config.top_p, config.max_new_tokens)
        key = named_key(runtime.key, version)
        rows = sample_resumable(f"{version} version", policy, prompts, sampling, key, _token_rows, runtime)
        answers[version] = [row["tokens"] for row in rows]
    comparisons = [
        _comparison(record, prompt, tokenizer, newest, earlier)
        for record, prompt, newest, earlier in zip(records, prompts, answers["newest"], answers["earlier"], strict=True)
    ]
    different = [index for index, c in enumerate(comparisons) if c["tokens_a"] != c["tokens_b"]]
    annotate = configured_function(config.annotator, inputs, runtime)
    labels = annotate([comparisons[index] for index in different])
    rows = []
    for index, label in zip(different, labels, strict=True):
        row = preference(records[index], comparisons[index], label)
        if row is not None:
            sources = {
                version: {"model": inputs[version].name, "temperature": float(temperature)}
                for version, temperature in zip(VERSIONS, temperatures[index], strict=True)
            }
            preferred = "newest" if label["preferred"] == "a" else "earlier"
            rows.append({**row, "round": config.round, "preferred_version": preferred, "sources": sources})
    test, training = _split(rows, config.test_comparisons, runtime)
    write_jsonl(runtime.folder / "comparisons_test.jsonl", test)
    write_jsonl(runtime.folder / "comparisons.jsonl", training)
    return {
        "comparisons": len(training),
        "test_comparisons": len(test),
        "identical_answers_left_out": len(records) - len(different),
        "chosen_unsafe_left_out": len(different) - len(rows),
        "ratings": shares(row["rating"] for row in rows),
        "safety_labels": shares(row["safety_label"] for row in rows if "safety_label" in row),
        "newest_preferred": shares(row["preferred_version"] for row in rows).get("newest", 0.0),
    }


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if more comparisons are held out than the prompts can give."""
    del inputs
    if (prompts := count(config.prompts)) <= config.test_comparisons:
        raise ValueError(
            f"test_comparisons={config.test_comparisons} are held out of at most {prompts} comparisons, one for each "
            "prompt, which leaves none to train on: give more prompts (the limits of its sources) or hold out fewer"
        )


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


def _token_rows(_: slice, samples: Sequence) -> list[dict]:
    return [{"tokens": sample.tokens.tolist()} for sample in samples]


def _split(rows: list[dict], test_comparisons: int, runtime: Runtime) -> tuple[list[dict], list[dict]]:
    """Test and training comparisons, in a random order."""
    order = np.random.default_rng([runtime.seed, 1]).permutation(len(rows))
    rows = [rows[index] for index in order]
    test, training = rows[:test_comparisons], rows[test_comparisons:]
    if not training:
        raise ValueError(
            f"{runtime.stage}: {len(rows)} comparisons were made and test_comparisons={test_comparisons} leaves none "
            "to train on: give more prompts or hold out fewer"
        )
    return test, training


def _comparison(
    record: dict, prompt: Sequence[int], tokenizer: Tokenizer, newest: list[int], earlier: list[int]
) -> dict:
    """What the annotator sees: the dialogue and two answers, without saying which version wrote which."""
    return {
        "messages": record["messages"],
        "prompt_tokens": list(prompt),
        "response_a": tokenizer.decode(newest),
        "response_b": tokenizer.decode(earlier),
        "tokens_a": newest,
        "tokens_b": earlier,
        # A campaign for safety may ask about harmless prompts too: its source says so by the record's domain.
        "domain": record.get("domain") or ("safety" if record["safety"] else "helpfulness"),
    }
