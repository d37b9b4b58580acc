"""A reward model (section 3.2.2): all comparisons so far, the ranking loss with margins, one epoch from a chat model.

The kind is "helpfulness" or "safety": it decides the data mix, and the safety model has the auxiliary loss too. A third
kind, "general", trains on all that it is given: on open comparisons alone it is the model that watches over the other
two (section 3.4.1).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.data.epochs import steps_in
from llama2_jax.data.held_out import part_by_prompt, without_test_prompts
from llama2_jax.data.preferences import (
    REWARD_LABELS,
    Comparison,
    encode_comparisons,
    helpfulness_mix,
    preference_batches,
    safety_mix,
)
from llama2_jax.data.records import DOMAINS
from llama2_jax.evaluation.reward_test import ScoredComparisons, reward_test, unsafe_test
from llama2_jax.models.adapters import AdapterConfig
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.flops import training_flops
from llama2_jax.objectives.ranking import MARGINS, ranking_loss, safety_auxiliary_loss
from llama2_jax.pipeline.comparisons import abstract_pairs, most_comparisons, read_test_comparisons
from llama2_jax.pipeline.device_programs import (
    abstract_trained,
    packed_rows,
    score_tokens,
    train_step,
)
from llama2_jax.pipeline.encoding import load_tokenizer, read_records
from llama2_jax.pipeline.held_out_scores import accuracy_tables, score_held_out
from llama2_jax.pipeline.model_training import build_model_step, check_schedule, fit_model, most_steps
from llama2_jax.pipeline.reward_models import scalar_start
from llama2_jax.pipeline.runtime import Inputs, Runtime
from llama2_jax.pipeline.stage_files import read_all_jsonl
from llama2_jax.pipeline.trainable import adapter_config, parameter_counts
from llama2_jax.sharding.mesh import row_multiple
from llama2_jax.sizing.programs import DeviceWork, ResidentModel
from llama2_jax.training.optimizer import OptimizerConfig
from llama2_jax.training.step import TrainStep

KINDS = (*DOMAINS, "general")


class TrainingRecords(NamedTuple):
    """Comparisons to train on, and how many were left out because their prompt is among the test comparisons'."""

    records: list[dict]
    test_prompts: int


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Trains the reward model and tests it on held-out comparisons by domain and rating.

    Results are by domain: "helpfulness" and "safety" for the comparisons of all rounds so far, "human_helpfulness" and
    "human_safety" for human ones from files, if the config names some. `tests` has by domain what `reward_test` says of
    the model, and of a safety model under `unsafe` how well its scores find unsafe answers, where answers are labelled.
    """
    tokenizer = load_tokenizer(inputs)
    test_records = read_test_comparisons(config, inputs, runtime)
    records, test_prompts = training_records(config, inputs, runtime, test_records)
    encode = functools.partial(encode_comparisons, tokenizer, length=config.length, too_long=config.too_long)
    training = encode(records, margins=MARGINS[config.margin], source=runtime.stage)
    test = {
        domain: encode(rows, margins=MARGINS["none"], source=f"{runtime.stage}, test, {domain}")
        for domain, rows in test_records.items()
    }
    params = _fit(config, inputs["start"], training.comparisons, runtime)
    scored = score_held_out(runtime.model, params, tokenizer, test_records, test)
    trained_on = [records[index]["domain"] for index in training.kept]
    return {
        "kind": config.kind,
        "round": config.round,
        **parameter_counts("scalar", adapter_config(config), runtime.model),
        "comparisons": {domain: trained_on.count(domain) for domain in DOMAINS},
        "left_out": {
            "test_prompts": test_prompts,
            "same_tokens": training.same_tokens,
            "same_tokens_in_test": sum(encoded.same_tokens for encoded in test.values()),
        },
        "too_long": training.too_long,
        **accuracy_tables(scored),
        **_tests(config, scored),
    }


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if the kind is unknown, a field of the test is missing, or the training cannot work out."""
    if config.kind not in KINDS:
        raise ValueError(f"kind={config.kind!r}: choose one of {', '.join(KINDS)}")
    # Found after the training otherwise.
    missing = [name for name in ("safety_threshold", "unsafe_precision") if name not in config]
    if config.kind == "safety" and missing:
        raise ValueError(f"a safety model is tested with {' and '.join(missing)}: give numbers such as 0.15 and 0.89")
    comparisons = most_comparisons(config, inputs, count) + count(config.open_preferences)
    check_schedule(config, most_steps(comparisons, config.pairs_per_batch, config.epochs), config.pairs_per_batch)


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """The training step on packed pairs, and the scores of held-out pairs."""
    adapters = adapter_config(config)
    trained = abstract_trained("reward model", model, config.optimizer, mesh, "scalar", adapters)
    rows = packed_rows(2 * config.pairs_per_batch // config.accumulation, mesh)
    step = train_step(
        _configured_step(config, model, mesh),
        trained,
        abstract_pairs(config, rows, dict.fromkeys(REWARD_LABELS, jnp.float32), mesh),
        training_flops(model, rows * config.accumulation, config.length, "scalar", adapters),
    )
    scores = score_tokens("held-out scores", model, mesh, ResidentModel("reward model", trained.params))
    assumption = f"every answer fills a row of {config.length} tokens: {rows * config.accumulation} rows a step"
    return DeviceWork((step, scores), unit="step", assumptions=(assumption,))


def training_records(
    config: ConfigDict, inputs: Inputs, runtime: Runtime, test: Mapping[str, Sequence[dict]]
) -> TrainingRecords:
    """Returns all comparisons so far, human ones from files and open data, in the kind's mix (section 3.2.2).

    With a `prompt_fraction` below 1 they are those of a part of the prompts, the same part for all of the experiment's
    reward models.

    Args:
      config, inputs, runtime: the stage's.
      test: the test comparisons of each domain. A comparison of a prompt that occurs among them is left out.
    """
    tested = [row for rows in test.values() for row in rows]
    files = read_records(config.preferences, runtime, "preferences")
    own, left_out = without_test_prompts([*read_all_jsonl(inputs["annotations"], "comparisons.jsonl"), *files], tested)
    open_data, open_left_out = without_test_prompts(
        read_records(config.open_preferences, runtime, "preferences"), tested
    )
    fraction = config.get("prompt_fraction", 1.0)
    own, open_data = (part_by_prompt(rows, fraction, runtime.experiment_seed) for rows in (own, open_data))
    return TrainingRecords(_mixed(config, own, open_data, runtime.seed), left_out + open_left_out)


def _mixed(config: ConfigDict, own: Sequence[dict], open_data: Sequence[dict], seed: int) -> list[dict]:
    if config.kind == "general":
        return [*own, *open_data]
    helpfulness = [row for row in own if row["domain"] == "helpfulness"]
    safety = [row for row in own if row["domain"] == "safety"]
    if config.kind == "helpfulness":
        return helpfulness_mix(helpfulness, [*safety, *open_data], config.other_fraction, seed)
    open_safety = [row for row in open_data if row["domain"] == "safety"]
    open_helpfulness = [row for row in open_data if row["domain"] == "helpfulness"]
    return safety_mix([*safety, *open_safety], [*helpfulness, *open_helpfulness], config.other_fraction, seed)


def _tests(config: ConfigDict, scored: Mapping[str, ScoredComparisons]) -> dict[str, dict | list[str]]:
    """What the held-out comparisons say beside the accuracy; the notes name what they cannot say."""
    tests, notes = {domain: reward_test(one) for domain, one in scored.items()}, []
    for domain, one in scored.items() if config.kind == "safety" else ():
        tests[domain]["unsafe"] = unsafe_test(one, config.safety_threshold, config.unsafe_precision)
        if "safety" in domain and tests[domain]["unsafe"] is None:
            notes.append(f"{domain}: none of {len(one.records)} test comparisons has an answer labelled unsafe")
    return {"tests": tests, "notes": notes}


def _fit(config: ConfigDict, start, comparisons: Sequence[Comparison], runtime: Runtime) -> dict:
    batches = preference_batches(
        comparisons, config.pairs_per_batch, config.length, runtime.seed, config.epochs,
        accumulation=config.accumulation, row_multiple=row_multiple(runtime.mesh),
    )  # fmt: skip
    params = scalar_start(start, runtime)
    step = _configured_step(config, runtime.model, runtime.mesh)
    return fit_model("scalar", config, params, step, iter(batches), steps_in(batches), runtime, base=start)


def _configured_step(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> TrainStep:
    weight = config.safety_auxiliary_weight if config.kind == "safety" else 0.0
    optimizer, adapters = OptimizerConfig(**config.optimizer), adapter_config(config)
    return reward_model_step(model, optimizer, weight, config.accumulation, mesh, adapters)


@functools.lru_cache
def reward_model_step(
    model: ModelConfig,
    optimizer: OptimizerConfig,
    auxiliary_weight: float,
    accumulation: int,
    mesh: Mesh,
    adapters: AdapterConfig | None = None,
) -> TrainStep:
    """Returns the compiled step of reward models; the auxiliary weight is 0 for helpfulness."""

    def loss(module, params, batch, counts):
        scores = module.apply({"params": params}, batch["tokens"], batch["positions"], batch["segment_ids"])
        chosen = scores[batch["chosen_row"], batch["chosen_column"]]
        rejected = scores[batch["rejected_row"], batch["rejected_column"]]
        mask = batch["pair_mask"]
        ranking = jnp.sum(mask * ranking_loss(chosen, rejected, batch["margin"])) / counts["pairs"]
        known = mask * batch["safety_known"]
        auxiliary = (
            jnp.sum(safety_auxiliary_loss(chosen, batch["chosen_safe"], known))
            + jnp.sum(safety_auxiliary_loss(rejected, batch["rejected_safe"], known))
        ) / counts["labels"]
        accuracy = jnp.sum(mask * (chosen > rejected)) / counts["pairs"]
        metrics = {"ranking_loss": ranking, "accuracy": accuracy}
        if auxiliary_weight:
            metrics["safety_loss"] = auxiliary
        return ranking + auxiliary_weight * auxiliary, metrics

    def count(batch):
        return {
            "pairs": jnp.maximum(jnp.sum(batch["pair_mask"]), 1.0),
            "labels": jnp.maximum(2.0 * jnp.sum(batch["pair_mask"] * batch["safety_known"]), 1.0),
        }

    stacked = accumulation > 1
    return build_model_step("scalar", loss, count, model, optimizer, mesh, accumulation, stacked, adapters)
