"""A reward model on rankings (InstructGPT, section 3.5): all pairs of a prompt's answers in one batch, one epoch.

The loss of a prompt is -1 / C(K, 2) times the sum of log sigmoid(r_better - r_worse) over the pairs of its K answers;
ties are none. The model is for helpful and for harmless answers alike. It is tested on held-out comparisons as the
models of stages/reward_model.py are. At last its bias is set: demonstrations then score 0 on average.
"""

import functools
import math
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.answer_batches import ComparedAnswers
from llama2_jax.data.counts import Count
from llama2_jax.data.epochs import shuffled, steps_in
from llama2_jax.data.held_out import without_test_prompts
from llama2_jax.data.preferences import encode_comparisons
from llama2_jax.data.rankings import RANKING_LABELS, encode_rankings, ranking_batches
from llama2_jax.inference.score import rewards
from llama2_jax.models.adapters import AdapterConfig
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.flops import training_flops
from llama2_jax.models.llama import Params
from llama2_jax.objectives.ranking import MARGINS, ranked_pairs_loss
from llama2_jax.pipeline.comparisons import abstract_pairs, read_test_comparisons
from llama2_jax.pipeline.device_programs import abstract_trained, packed_rows, score_tokens, train_step
from llama2_jax.pipeline.encoding import encode_row, load_tokenizer, read_records
from llama2_jax.pipeline.held_out_scores import accuracy_tables, score_held_out
from llama2_jax.pipeline.model_training import build_model_step, check_schedule, fit_model, most_steps
from llama2_jax.pipeline.reward_models import scalar_start, write_offset
from llama2_jax.pipeline.runtime import Inputs, Runtime
from llama2_jax.pipeline.stage_files import read_all_jsonl
from llama2_jax.pipeline.trainable import adapter_config, parameter_counts
from llama2_jax.sharding.mesh import row_multiple
from llama2_jax.sizing.programs import DeviceWork, ResidentModel
from llama2_jax.text.tokenizer import Tokenizer
from llama2_jax.training.optimizer import OptimizerConfig
from llama2_jax.training.step import TrainStep


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Trains the reward model from the input `start`, tests it on held-out comparisons and sets its bias.

    The input `rankings` are the stages that wrote them; `annotations` those that held comparisons out.
    """
    tokenizer = load_tokenizer(inputs)
    test_records = read_test_comparisons(config, inputs, runtime)
    files = read_records(config.rankings, runtime, "rankings")
    records, test_prompts = without_test_prompts(
        [*read_all_jsonl(inputs["rankings"], "rankings.jsonl"), *files],
        [row for rows in test_records.values() for row in rows],
    )
    options = {"length": config.length, "too_long": config.too_long}
    training = encode_rankings(tokenizer, records, source=runtime.stage, **options)
    test = {
        domain: encode_comparisons(
            tokenizer, rows, margins=MARGINS["none"], source=f"{runtime.stage}, test, {domain}", **options
        )
        for domain, rows in test_records.items()
    }
    demonstrations = _demonstrations(config, tokenizer, runtime)
    params = _fit(config, inputs["start"], training.rankings, runtime)
    offset = float(np.mean(rewards(runtime.model, params, demonstrations), dtype=np.float64))
    write_offset(runtime.folder, offset)
    return {
        **parameter_counts("scalar", adapter_config(config), runtime.model),
        "rankings": len(training.rankings),
        "answers": sum(len(one.answers) for one in training.rankings),
        "comparisons": sum(len(one.pairs) for one in training.rankings),
        "left_out": {"test_prompts": test_prompts, "all_tied": training.all_tied},
        "too_long": training.too_long,
        # What every score is less: the mean of so many demonstrations.
        "offset": offset,
        "demonstrations": len(demonstrations),
        **accuracy_tables(score_held_out(runtime.model, params, tokenizer, test_records, test)),
    }


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if the training's settings cannot work out."""
    # How many rankings an imported stage has is not known.
    ranked = sum(
        min(count(part.prompts), part.judged_answers // min(part.answers_per_prompt)) if "prompts" in part else math.inf
        for part in inputs["rankings"]
    )
    most = most_steps(ranked + count(config.rankings), config.prompts_per_batch, config.epochs)
    check_schedule(config, most, config.prompts_per_batch)


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """The training step on packed answers and their pairs, and the scores of held-out pairs and demonstrations."""
    adapters, prompts = adapter_config(config), config.prompts_per_batch // config.accumulation
    trained = abstract_trained("reward model", model, config.optimizer, mesh, "scalar", adapters)
    rows = packed_rows(prompts * config.most_answers, mesh)
    pairs = prompts * math.comb(config.most_answers, 2)
    step = train_step(
        _configured_step(config, model, mesh),
        trained,
        abstract_pairs(config, rows, dict.fromkeys(RANKING_LABELS, jnp.float32), mesh, pairs),
        training_flops(model, rows * config.accumulation, config.length, "scalar", adapters),
    )
    scores = score_tokens("held-out scores", model, mesh, ResidentModel("reward model", trained.params))
    assumption = (
        f"every prompt has {config.most_answers} answers, and each fills a row of {config.length} tokens: "
        f"{rows * config.accumulation} rows a step"
    )
    return DeviceWork((step, scores), unit="step", assumptions=(assumption,))


def _demonstrations(config: ConfigDict, tokenizer: Tokenizer, runtime: Runtime) -> list[np.ndarray]:
    """Returns the ids of demonstrations, drawn at random, that fit the model's context."""
    records = read_records(config.demonstrations, runtime, "dialogues")
    drawn = shuffled(len(records), runtime.seed, "demonstrations")[: config.offset_demonstrations]
    encoded = [encode_row(tokenizer, records[index]).tokens for index in drawn]
    fitting = [tokens for tokens in encoded if len(tokens) <= runtime.model.max_length]
    if not fitting:
        raise ValueError(
            f"{runtime.stage}: none of {len(records)} demonstrations fits model.max_length={runtime.model.max_length}: "
            "there is nothing to set the bias by"
        )
    return fitting


def _fit(config: ConfigDict, start: epath.Path, rankings: Sequence[ComparedAnswers], runtime: Runtime) -> Params:
    most = max((len(one.answers) for one in rankings), default=0)
    if most > config.most_answers:
        raise ValueError(f"{runtime.stage}: a ranking has {most} answers; raise most_answers={config.most_answers}")
    batches = ranking_batches(
        rankings, config.prompts_per_batch, config.length, runtime.seed, config.epochs,
        accumulation=config.accumulation, row_multiple=row_multiple(runtime.mesh),
    )  # fmt: skip
    params = scalar_start(start, runtime)
    step = _configured_step(config, runtime.model, runtime.mesh)
    return fit_model("scalar", config, params, step, iter(batches), steps_in(batches), runtime, base=start)


def _configured_step(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> TrainStep:
    optimizer, adapters = OptimizerConfig(**config.optimizer), adapter_config(config)
    return ranked_reward_model_step(model, optimizer, config.accumulation, mesh, adapters)


@functools.lru_cache
def ranked_reward_model_step(
    model: ModelConfig,
    optimizer: OptimizerConfig,
    accumulation: int,
    mesh: Mesh,
    adapters: AdapterConfig | None = None,
) -> TrainStep:
    """Returns the compiled step on batches of `ranking_batches`."""

    def loss(module, params, batch, counts):
        scores = module.apply({"params": params}, batch["tokens"], batch["positions"], batch["segment_ids"])
        better = scores[batch["chosen_row"], batch["chosen_column"]]
        worse = scores[batch["rejected_row"], batch["rejected_column"]]
        # The weight and the mask of padding pairs are 0.
        ranking = jnp.sum(ranked_pairs_loss(better, worse, batch["pair_weight"])) / counts["prompts"]
        return ranking, {"accuracy": jnp.sum(batch["pair_mask"] * (better > worse)) / counts["pairs"]}

    def count(batch):
        return {
            "prompts": jnp.maximum(jnp.sum(batch["prompt_share"]), 1.0),
            "pairs": jnp.maximum(jnp.sum(batch["pair_mask"]), 1.0),
        }

    stacked = accumulation > 1
    return build_model_step("scalar", loss, count, model, optimizer, mesh, accumulation, stacked, adapters)
