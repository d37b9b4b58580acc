"""DPO as a stage: a round's comparisons, and the chat model that answered as both policy and reference."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np

from llama2_jax.data.epochs import steps_in
from llama2_jax.data.preferences import encode_comparisons, preference_batches
from llama2_jax.inference.score import response_log_probabilities, score_following
from llama2_jax.objectives.ranking import MARGINS
from llama2_jax.pipeline.encoding import load_tokenizer
from llama2_jax.pipeline.model_training import build_model_step, fit_model
from llama2_jax.pipeline.stage_files import read_all_jsonl
from llama2_jax.sharding.mesh import row_multiple
from llama2_jax.training.model_folder import load_model
from llama2_jax.training.optimizer import OptimizerConfig
from tests.docs.own_objective.objective import dpo_loss


def run(config, inputs, runtime):
    """Trains the policy on all comparisons and leaves it in the stage's folder."""
    records = read_all_jsonl(inputs["annotations"], "comparisons.jsonl")
    policy = load_model(inputs["policy"], runtime.mesh).params
    comparisons = encode_comparisons(
        load_tokenizer(inputs), records, margins=MARGINS["none"], length=config.length, too_long=config.too_long,
        source=runtime.stage,
    ).comparisons  # fmt: skip
    comparisons = with_reference(comparisons, policy, runtime.model)
    batches = preference_batches(
        comparisons, config.pairs_per_batch, config.length, runtime.seed, config.epochs,
        row_multiple=row_multiple(runtime.mesh),
    )  # fmt: skip
    step = dpo_step(runtime.model, OptimizerConfig(**config.optimizer), config.beta, runtime.mesh)
    fit_model("language", config, policy, step, iter(batches), steps_in(batches), runtime)
    return {"pairs": len(comparisons)}


def with_reference(comparisons, reference, model):
    """The comparisons with log p(chosen) - log p(rejected) under the reference in place of the margin."""
    sequences = [ids for one in comparisons for ids in (one.chosen, one.rejected)]
    scored = response_log_probabilities(
        model, reference, [ids[:1] for ids in sequences], [ids[1:] for ids in sequences], 1.0
    )
    sums = np.asarray([tokens.sum() for tokens in scored])
    return [
        dataclasses.replace(one, margin=float(margin))
        for one, margin in zip(comparisons, sums[::2] - sums[1::2], strict=True)
    ]


@functools.lru_cache
def dpo_step(model, optimizer, beta, mesh):
    """The compiled step. Both answers follow the same prompt, so its log-probability cancels out."""

    def loss(module, params, batch, counts):
        inputs = batch["tokens"], batch["positions"], batch["segment_ids"]
        scores = score_following(module, params, inputs, temperature=1.0)
        so_far = jnp.cumsum(scores.log_probability, axis=-1)

        def answer(side):
            row, last = batch[f"{side}_row"], batch[f"{side}_column"]
            first = last - batch["positions"][row, last]
            return so_far[row, last - 1] - so_far[row, first] + scores.log_probability[row, first]

        losses = dpo_loss(answer("chosen"), answer("rejected"), batch["margin"], beta)
        preferred = answer("chosen") - answer("rejected") > batch["margin"]
        mean = functools.partial(jnp.sum, where=batch["pair_mask"] > 0)
        return mean(losses) / counts, {"accuracy": mean(preferred) / counts}

    def count(batch):
        return jnp.maximum(jnp.sum(batch["pair_mask"]), 1.0)

    return build_model_step("language", loss, count, model, optimizer, mesh)
