"""Direct preference optimisation (Rafailov et al. 2023): the policy learns from comparisons, without a reward model.

The reference is the policy as it starts. Its log-probabilities of all answers are computed before the training, so that
only one model is on the devices at any time. Its training takes the comparisons of all rounds so far as the reward
models of `stages/reward_model.py` do, of both domains.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.data.epochs import shuffled, steps_in
from llama2_jax.data.held_out import without_test_prompts
from llama2_jax.data.preferences import Comparison, EncodedComparisons, encode_comparisons, preference_batches
from llama2_jax.data.records import DOMAINS
from llama2_jax.evaluation.reward_accuracy import accuracy_by_rating
from llama2_jax.inference.score import response_log_probabilities, score_following
from llama2_jax.models.adapters import AdapterConfig
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.flops import training_flops
from llama2_jax.models.llama import Params
from llama2_jax.objectives.dpo import Pairs, implicit_rewards, mean_dpo_loss, sum_over_answers
from llama2_jax.objectives.ranking import MARGINS
from llama2_jax.pipeline.comparisons import abstract_pairs, most_comparisons, read_test_comparisons
from llama2_jax.pipeline.device_programs import (
    abstract_model,
    abstract_trained,
    packed_rows,
    score_log_probabilities,
    train_step,
)
from llama2_jax.pipeline.encoding import load_tokenizer, read_records
from llama2_jax.pipeline.model_training import Evaluate, build_model_step, check_schedule, fit_model, most_steps
from llama2_jax.pipeline.resumable import map_resumable
from llama2_jax.pipeline.runtime import Inputs, Runtime
from llama2_jax.pipeline.stage_files import read_all_jsonl
from llama2_jax.pipeline.trainable import adapter_config, parameter_counts
from llama2_jax.sharding.mesh import row_multiple
from llama2_jax.sizing.programs import DeviceWork
from llama2_jax.training.model_folder import load_model
from llama2_jax.training.optimizer import OptimizerConfig
from llama2_jax.training.step import TrainStep

# What a batch has of each comparison: the reference's log-probabilities, and how many tokens the answers have.
LABELS = {
    **{f"reference_{side}": jnp.float32 for side in Pairs._fields},
    **{f"{side}_size": jnp.int32 for side in Pairs._fields},
}


class HeldOut(NamedTuple):
    """Held-out comparisons, the domain of each, and the reference's log-probabilities of their answers."""

    comparisons: list[Comparison]
    domains: np.ndarray
    reference: Pairs


class Objective(NamedTuple):
    """What of `mean_dpo_loss` a config sets."""

    beta: float
    label_smoothing: float


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Trains the input `policy` on the comparisons of `annotations` and files, and tests it on held-out ones.

    The results have, by domain and rating, how often its implicit reward ranks held-out comparisons right, and by
    domain the means of `mean_dpo_loss` over them.
    """
    tokenizer = load_tokenizer(inputs)
    test_records = read_test_comparisons(config, inputs, runtime)
    own = [
        *read_all_jsonl(inputs["annotations"], "comparisons.jsonl"),
        *read_records(config.preferences, runtime, "preferences"),
    ]
    records, test_prompts = without_test_prompts(own, [row for rows in test_records.values() for row in rows])
    encode = functools.partial(
        encode_comparisons, tokenizer, margins=MARGINS["none"], length=config.length, too_long=config.too_long
    )
    training = encode(records, source=runtime.stage)
    test = {domain: encode(rows, source=f"{runtime.stage}, test, {domain}") for domain, rows in test_records.items()}
    params = load_model(inputs["policy"], runtime.mesh, "language").params
    reference = reference_log_probabilities("reference", training.comparisons, params, runtime)
    held_out = _held_out(test, params, runtime)
    evaluate = evaluation(config, held_out, runtime)
    params = _fit(config, params, inputs["policy"], training.comparisons, reference, evaluate, runtime)
    trained_on = [records[index]["domain"] for index in training.kept]
    return {
        **parameter_counts("language", adapter_config(config), runtime.model),
        "comparisons": {domain: trained_on.count(domain) for domain in DOMAINS},
        "left_out": {
            "test_prompts": test_prompts,
            "same_tokens": training.same_tokens,
            "same_tokens_in_test": sum(encoded.same_tokens for encoded in test.values()),
        },
        "too_long": training.too_long,
        **_tested(config, params, held_out, runtime.model),
    }


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if the training's settings cannot work out."""
    comparisons = most_comparisons(config, inputs, count)
    check_schedule(config, most_steps(comparisons, config.pairs_per_batch, config.epochs), config.pairs_per_batch)


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """The reference's scores of all answers, the training step on packed pairs, and the policy's of held-out ones."""
    reference, adapters = abstract_model("reference", model, mesh), adapter_config(config)
    trained = abstract_trained("policy", model, config.optimizer, mesh, adapters=adapters)
    rows = packed_rows(2 * config.pairs_per_batch // config.accumulation, mesh)
    step = train_step(
        _configured_step(config, model, mesh),
        trained,
        abstract_pairs(config, rows, LABELS, mesh),
        training_flops(model, rows * config.accumulation, config.length, adapters=adapters),
    )
    programs = (
        score_log_probabilities("reference log-probabilities", model, mesh, reference, ()),
        step,
        score_log_probabilities("held-out log-probabilities", model, mesh, trained, ()),
    )
    assumption = f"every answer fills a row of {config.length} tokens: {rows * config.accumulation} rows a step"
    return DeviceWork(programs, unit="step", assumptions=(assumption,))


def pair_log_probabilities(model: ModelConfig, params: Params, comparisons: Sequence[Comparison]) -> Pairs:
    """Returns the log-probabilities of both answers of each comparison, float32, summed in float64."""
    sides = zip(("chosen", "rejected"), (0, 1), strict=True)
    answers = [(getattr(one, side), one.answer_sizes[place]) for side, place in sides for one in comparisons]
    scored = response_log_probabilities(
        model, params, [ids[:-size] for ids, size in answers], [ids[-size:] for ids, size in answers], 1.0
    )
    sums = np.asarray([tokens.sum(dtype=np.float64) for tokens in scored], np.float32)
    return Pairs(sums[: len(comparisons)], sums[len(comparisons) :])


def reference_log_probabilities(
    name: str, comparisons: Sequence[Comparison], params: Params, runtime: Runtime
) -> Pairs:
    """Returns the same under the reference, computed in resumable shards under a name."""

    def work(first: int, stop: int) -> list[dict]:
        found = pair_log_probabilities(runtime.model, params, comparisons[first:stop])
        return [{"chosen": float(chosen), "rejected": float(rejected)} for chosen, rejected in zip(*found, strict=True)]

    rows = map_resumable(name, len(comparisons), work, runtime)
    return Pairs(*(np.asarray([row[side] for row in rows], np.float32) for side in Pairs._fields))


def _held_out(test: Mapping[str, EncodedComparisons], params: Params, runtime: Runtime) -> HeldOut:
    domains, comparisons = [], []
    for domain, encoded in test.items():
        domains += [domain] * len(encoded.comparisons)
        comparisons += encoded.comparisons
    reference = reference_log_probabilities("held-out reference", comparisons, params, runtime)
    return HeldOut(comparisons, np.asarray(domains, str), reference)


def evaluation(config: ConfigDict, held_out: HeldOut, runtime: Runtime) -> Evaluate:
    """Returns an evaluation of parameters: loss and metrics of `mean_dpo_loss` on held-out comparisons.

    They are `held_out_batches` of the training's size, drawn from those of all domains; {} if there are none.
    """
    count = min(len(held_out.comparisons), config.held_out_batches * config.pairs_per_batch)
    drawn = shuffled(len(held_out.comparisons), runtime.seed, "held out")[:count]
    comparisons, reference = [held_out.comparisons[index] for index in drawn], _selected(held_out.reference, drawn)

    def evaluate(params: Params) -> dict[str, float]:
        if not comparisons:
            return {}
        policy = pair_log_probabilities(runtime.model, params, comparisons)
        return {f"held_out_{name}": value for name, value in _measures(config, policy, reference).items()}

    return evaluate


def _selected(pairs: Pairs, selected: np.ndarray) -> Pairs:
    return Pairs(*(side[selected] for side in pairs))


def _measures(config: ConfigDict, policy: Pairs, reference: Pairs) -> dict[str, float]:
    """The loss and the metrics of given log-probabilities."""
    count = len(policy.chosen)
    loss, metrics = mean_dpo_loss(
        policy, reference, np.ones(count), np.float32(count), config.beta, config.label_smoothing
    )
    return {name: float(value) for name, value in {"loss": loss, **metrics}.items()}


def _tested(config: ConfigDict, params: Params, held_out: HeldOut, model: ModelConfig) -> dict[str, dict]:
    """Accuracy by domain and rating, its standard error and number of pairs, as reward models have them; and means."""
    policy = pair_log_probabilities(model, params, held_out.comparisons)
    results: dict[str, dict] = {name: {} for name in ("accuracy", "standard_error", "pairs", "held_out")}
    for domain in dict.fromkeys(held_out.domains.tolist()):
        inside = np.flatnonzero(held_out.domains == domain)
        ours, theirs = _selected(policy, inside), _selected(held_out.reference, inside)
        ratings = [held_out.comparisons[index].rating for index in inside]
        table = accuracy_by_rating(*implicit_rewards(ours, theirs, config.beta), ratings)
        for name in ("accuracy", "standard_error", "pairs"):
            results[name][domain] = {rating: row[name] for rating, row in table.items()}
        results["held_out"][domain] = _measures(config, ours, theirs)
    return results


def _fit(
    config: ConfigDict,
    params: Params,
    policy: epath.Path,
    comparisons: Sequence[Comparison],
    reference: Pairs,
    evaluate: Evaluate,
    runtime: Runtime,
) -> Params:
    sizes = np.asarray([one.answer_sizes for one in comparisons], np.int32).reshape(-1, 2)
    labels = dict(zip(LABELS, (*reference, *sizes.T), strict=True))
    batches = preference_batches(
        comparisons, config.pairs_per_batch, config.length, runtime.seed, config.epochs,
        accumulation=config.accumulation, row_multiple=row_multiple(runtime.mesh), labels=labels,
    )  # fmt: skip
    step = _configured_step(config, runtime.model, runtime.mesh)
    return fit_model("language", config, params, step, iter(batches), steps_in(batches), runtime, evaluate, base=policy)


def _configured_step(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> TrainStep:
    objective = Objective(config.beta, config.label_smoothing)
    optimizer, adapters = OptimizerConfig(**config.optimizer), adapter_config(config)
    return dpo_step(model, optimizer, objective, config.accumulation, mesh, adapters)


@functools.lru_cache
def dpo_step(
    model: ModelConfig,
    optimizer: OptimizerConfig,
    objective: Objective,
    accumulation: int,
    mesh: Mesh,
    adapters: AdapterConfig | None = None,
) -> TrainStep:
    """Returns the compiled step on batches of `preference_batches` with the labels LABELS."""

    def loss(module, params, batch, counts):
        inputs = batch["tokens"], batch["positions"], batch["segment_ids"]
        following = score_following(module, params, inputs, temperature=1.0).log_probability
        policy = Pairs(*(
            sum_over_answers(following, *(batch[f"{side}_{field}"] for field in ("row", "column", "size")))
            for side in Pairs._fields
        ))  # fmt: skip
        reference = Pairs(batch["reference_chosen"], batch["reference_rejected"])
        return mean_dpo_loss(policy, reference, batch["pair_mask"], counts, *objective)

    def count(batch):
        return jnp.maximum(jnp.sum(batch["pair_mask"]), 1.0)

    stacked = accumulation > 1
    return build_model_step("language", loss, count, model, optimizer, mesh, accumulation, stacked, adapters)
