"""IPO as a stage: a round's comparisons, and the chat model that answered as both policy and reference."""

import functools

import jax.numpy as jnp
import numpy as np

from llama2_jax.data.epochs import steps_in
from llama2_jax.data.preferences import encode_comparisons, preference_batches
from llama2_jax.inference.score import score_following
from llama2_jax.objectives.dpo import sum_over_answers
from llama2_jax.objectives.ranking import MARGINS
from llama2_jax.pipeline.encoding import load_tokenizer
from llama2_jax.pipeline.model_training import build_model_step, fit_model
from llama2_jax.pipeline.stage_files import read_all_jsonl
from llama2_jax.sharding.mesh import row_multiple
from llama2_jax.stages.dpo import reference_log_probabilities
from llama2_jax.training.model_folder import load_model
from llama2_jax.training.optimizer import OptimizerConfig
from tests.docs.own_objective.objective import ipo_loss


def run(config, inputs, runtime):
    """Trains the policy on all comparisons and leaves it in the stage's folder."""
    records = read_all_jsonl(inputs["annotations"], "comparisons.jsonl")
    policy = load_model(inputs["policy"], runtime.mesh).params
    comparisons = encode_comparisons(
        load_tokenizer(inputs), records, margins=MARGINS["none"], length=config.length, too_long=config.too_long,
        source=runtime.stage,
    ).comparisons  # fmt: skip
    reference = reference_log_probabilities("reference", comparisons, policy, runtime)
    sizes = np.asarray([one.answer_sizes for one in comparisons], np.int32)
    batches = preference_batches(
        comparisons, config.pairs_per_batch, config.length, runtime.seed, config.epochs,
        row_multiple=row_multiple(runtime.mesh),
        labels={
            "reference": reference.chosen - reference.rejected,
            "chosen_size": sizes[:, 0],
            "rejected_size": sizes[:, 1],
        },
    )  # fmt: skip
    step = ipo_step(runtime.model, OptimizerConfig(**config.optimizer), config.beta, runtime.mesh)
    fit_model("language", config, policy, step, iter(batches), steps_in(batches), runtime)
    return {"pairs": len(comparisons)}


@functools.lru_cache
def ipo_step(model, optimizer, beta, mesh):
    """The compiled step."""

    def loss(module, params, batch, counts):
        inputs = batch["tokens"], batch["positions"], batch["segment_ids"]
        following = score_following(module, params, inputs, temperature=1.0).log_probability

        def answer(side):
            return sum_over_answers(following, *(batch[f"{side}_{field}"] for field in ("row", "column", "size")))

        losses = ipo_loss(answer("chosen"), answer("rejected"), batch["reference"], beta)
        preferred = answer("chosen") - answer("rejected") > batch["reference"]
        mean = functools.partial(jnp.sum, where=batch["pair_mask"] > 0)
        return mean(losses) / counts, {"accuracy": mean(preferred) / counts}

    def count(batch):
        return jnp.maximum(jnp.sum(batch["pair_mask"]), 1.0)

    return build_model_step("language", loss, count, model, optimizer, mesh)
