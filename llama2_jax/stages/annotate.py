"""Preference annotation (section 3.2.1): two versions answer at two temperatures, an annotator says which is better.

Writes comparisons.jsonl and comparisons_test.jsonl (held out by prompt), in the form of DESIGN's preferences with the
answers' token ids beside their texts.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.records import SAFETY_LABELS
from llama2_jax.inference.generate import Sampling, generate
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.device_programs import LONGEST_PROMPTS, DeviceWork, abstract_model, generation
from llama2_jax.pipeline.encoding import encode_prompts, read_records
from llama2_jax.pipeline.resumable import map_resumable
from llama2_jax.pipeline.reward_models import annotator_scores
from llama2_jax.pipeline.runtime import Inputs, Runtime, configured_function, named_key, write_jsonl
from llama2_jax.text.tokenizer import Tokenizer
from llama2_jax.training.model_folder import load_model


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Samples the pairs, has them compared, and splits them into training and test comparisons."""
    tokenizer = Tokenizer.load(inputs["tokenizer"] / "tokenizer.model")
    records = read_records(config.prompts, runtime)
    room = runtime.model.max_length - config.max_new_tokens
    records, prompts = encode_prompts(tokenizer, records, room, runtime.stage)
    temperatures = two_temperatures(len(records), config.temperatures, runtime.seed)
    answers = {
        version: _answers(config, inputs[version], prompts, temperatures[:, index], version, tokenizer, runtime)
        for index, version in enumerate(("newest", "earlier"))
    }
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
                version: {"model": inputs[version].name, "temperature": float(temperatures[index, column])}
                for column, version in enumerate(("newest", "earlier"))
            }
            preferred = "newest" if label["preferred"] == "a" else "earlier"
            rows.append({**row, "round": config.round, "preferred_version": preferred, "sources": sources})
    order = np.random.default_rng([runtime.seed, 1]).permutation(len(rows))
    rows = [rows[index] for index in order]
    test, training = rows[: config.test_comparisons], rows[config.test_comparisons :]
    if not training:
        raise ValueError(
            f"{runtime.stage}: {len(rows)} comparisons were made and test_comparisons={config.test_comparisons} "
            "leaves none to train on: give more prompts or hold out fewer"
        )
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


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """Generation, by one version after the other, and the scores of an annotator that is a model."""
    version = abstract_model("version", model, mesh)
    programs = (*generation(config, model, mesh, version), *annotator_scores(config, model, mesh))
    assumptions = (LONGEST_PROMPTS, f"of what the annotator {config.annotator.function} holds its models are counted")
    return DeviceWork(programs, assumptions=assumptions)


def two_temperatures(count: int, temperatures: Sequence[float], seed: int) -> np.ndarray:
    """Two different temperatures a prompt, [count, 2]."""
    generator = np.random.default_rng(seed)
    return np.stack([generator.choice(temperatures, size=2, replace=False) for _ in range(count)])


def preference(record: dict, comparison: dict, label: dict) -> dict | None:
    """The annotator's label as a preferences row; None for "chosen unsafe, rejected safe": the paper leaves it out."""
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


def shares(values) -> dict[str, float]:
    """The share of each value."""
    counts = Counter(values)
    return {value: round(count / counts.total(), 4) for value, count in sorted(counts.items())}


def _answers(config, folder, prompts, temperatures, version, tokenizer, runtime) -> list[list[int]]:
    """A version's answers as ids."""
    params = load_model(folder, runtime.mesh).params

    def answer(first: int, stop: int) -> list[dict]:
        samples = generate(
            runtime.model,
            params,
            prompts[first:stop],
            Sampling(top_p=config.top_p, max_new_tokens=config.max_new_tokens),
            temperatures=temperatures[first:stop],
            key=named_key(runtime.key, version),
            eos_id=tokenizer.eos_id,
            prompt_ids=range(first, stop),
        )
        return [{"tokens": sample.tokens.tolist()} for sample in samples]

    return [row["tokens"] for row in map_resumable(f"{version} version", len(prompts), answer, runtime)]


def _comparison(
    record: dict, prompt: Sequence[int], tokenizer: Tokenizer, newest: list[int], earlier: list[int]
) -> dict:
    """What the annotator sees: the dialogue and two answers; which version wrote which is not told."""
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
