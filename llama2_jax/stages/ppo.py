"""Proximal policy optimisation on top of rejection sampling (section 3.2.3, equations 3 and 4).

Each iteration samples one answer to each prompt of a batch, rewards it (by default by the piecewise rule: its logit,
whitened over the batch, less the KL to the starting policy a token), and takes one gradient step a minibatch on the
policy and on a critic of its own, which starts as the helpfulness reward model. The policy with the best reward on
held-out prompts is kept. That reward is the largest of several evaluations, so the gain is measured again at the end:
the starting policy and the best one answer the held-out prompts with randomness that chose neither.

A general reward model, if the stage has one, scores the answers to the held-out prompts too. Nothing is trained for it:
where it falls on harmless prompts while the reward rises, a warning says so (section 3.4.1). With `guarded` no policy
is kept for which it has fallen, or the reward on tagged or on harmless prompts has, or that refuses more of the
harmless ones (pipeline/ppo_selection.py).

With `advantages` = "group" there is no critic: `samples_per_prompt` answers to a prompt are compared with each other
(GRPO, Shao et al. 2024). A `pretraining_mix` adds text to each of the policy's steps (PPO-ptx, InstructGPT). With an
`ema_decay` the running average of the policy's weights is what is evaluated and kept.
"""

import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.data.prompts import prompt_batches
from llama2_jax.evaluation.over_optimisation import Rewards, reward_changes
from llama2_jax.evaluation.paired import paired_difference
from llama2_jax.evaluation.refusals import is_refusal
from llama2_jax.models.adapters import AdapterConfig, adapt
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.flops import training_flops
from llama2_jax.models.llama import Params
from llama2_jax.pipeline import device_programs
from llama2_jax.pipeline.encoding import load_tokenizer, read_prompts
from llama2_jax.pipeline.general_reward import load_general_reward
from llama2_jax.pipeline.ppo_loop import Environment, configured_steps, iterate
from llama2_jax.pipeline.ppo_residents import resident_models
from llama2_jax.pipeline.ppo_schedule import has_critic, schedule_problems
from llama2_jax.pipeline.pretraining_mix import Positions, mix_problems, text_batches
from llama2_jax.pipeline.reward_models import load_reward_models, reward_scores
from llama2_jax.pipeline.rollouts import Frozen, Prompts, Rollouts, answer_and_score, collect, token_fields
from llama2_jax.pipeline.runtime import Inputs, Runtime, configured_function, named_key
from llama2_jax.pipeline.trainable import adapter_config, as_frozen, parameter_counts
from llama2_jax.sizing.programs import DeviceWork, Program, ResidentModel
from llama2_jax.training.adaptation import Adaptation, restore_trained
from llama2_jax.training.model_folder import load_model, save_model_description
from llama2_jax.training.optimizer import OptimizerConfig


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Runs PPO and leaves the best policy in the stage's folder."""
    tokenizer = load_tokenizer(inputs)
    records, ids = read_prompts(config.prompts, config.max_new_tokens, tokenizer, runtime)
    prompts_per_batch = config.batch_size // config.samples_per_prompt
    batches = iter(prompt_batches(list(zip(records, ids, strict=True)), prompts_per_batch, runtime.seed))
    held_out = Prompts(*read_prompts(config.held_out_prompts, config.max_new_tokens, tokenizer, runtime))
    text = text_batches(config.pretraining_mix, tokenizer, runtime)
    reference = load_model(inputs["policy"], runtime.mesh, "language").params
    adapters = adapter_config(config)
    if adapters is not None:
        # It holds the policy's frozen parameters too, as the helpfulness reward model holds the critic's.
        reference = as_frozen(reference, runtime.model, adapters)
    reward = configured_function(config.reward, inputs, runtime)
    reward_models = load_reward_models(inputs, runtime, reward, adapters)
    general = load_general_reward(inputs, runtime, adapters)
    frozen = Frozen(runtime.model, reference, reward_models, tokenizer)

    def rollouts(policy: Params, critic: Params | None, iteration: int) -> Rollouts:
        prompts = Prompts(*zip(*next(batches), strict=True))
        key = jax.random.fold_in(named_key(runtime.key, "rollouts"), iteration)
        return collect(config, frozen, policy, critic, prompts, key)

    def held_out_rewards(policy: Params, draw: str) -> Rewards:
        """The rewards of an answer to each held-out prompt; `draw` names the randomness."""
        samples, scores = answer_and_score(config, frozen, policy, held_out, named_key(runtime.key, draw))
        answered = [[*ids, *sample.tokens.tolist()] for ids, sample in zip(held_out.ids, samples, strict=True)]
        refused = [is_refusal(frozen.tokenizer.decode(sample.tokens)) for sample in samples]
        return Rewards(scores.combined.tolist(), None if general is None else general(answered).tolist(), refused)

    adaptation = None if adapters is None else Adaptation.to(inputs["policy"], adapters)
    save_model_description(runtime.folder, runtime.model, "language", adaptation)
    environment = Environment(
        batches if text is None else Positions({"prompts": batches, "text": text}),
        rollouts,
        held_out.records,
        functools.partial(held_out_rewards, draw="held out"),
        text,
    )
    critic = reward_models.helpfulness if has_critic(config) else None
    progress = iterate(config, reference, critic, environment, runtime)
    before = held_out_rewards(reference, "held out, final")
    best = _best_policy(reference, adapters, runtime)
    after = held_out_rewards(best, "held out, final")
    gain, standard_error = paired_difference(after.optimised, before.optimised)
    return {
        **parameter_counts("language", adapters, runtime.model),
        "iterations": progress.iteration,
        "best_iteration": progress.best_iteration,
        "held_out_reward_before": float(np.mean(before.optimised)),
        "held_out_reward": float(np.mean(after.optimised)),
        "held_out_gain": gain,
        "held_out_gain_standard_error": standard_error,
        # What the evaluations in the loop said; the second is the largest of them.
        "selection_reward_before": progress.first,
        "selection_reward": progress.best,
        "stopped_early": progress.iteration < config.iterations,
        # After which iteration the evaluations in the loop first showed that both rewards part.
        "over_optimisation": progress.over_optimised,
        **_general_results(before.harmless(held_out.records), after.harmless(held_out.records)),
    }


def _best_policy(reference: Params, adapters: AdapterConfig | None, runtime: Runtime) -> Params:
    if adapters is None:
        return load_model(runtime.folder, runtime.mesh, "language").params
    # Not merged: that would be another model of full size.
    trained = restore_trained(runtime.folder, runtime.model, "language", adapters, runtime.mesh)
    return adapt(reference, trained, adapters)


def _general_results(before: Rewards, after: Rewards) -> dict:
    """The general reward of the policy that is kept, on new answers to the harmless prompts; None without it."""
    changes = reward_changes(before, after)
    return {
        "held_out_general_reward_before": changes and float(np.mean(before.general)),
        "held_out_general_reward": changes and float(np.mean(after.general)),
        "held_out_general_change": changes and changes.general,
        "held_out_general_change_standard_error": changes and changes.general_standard_error,
    }


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if no iteration could train the policy, or if there are too few prompts for a batch."""
    del inputs
    OptimizerConfig(**config.optimizer)
    adapters = adapter_config(config)
    if adapters is not None and adapters.dropout:
        raise ValueError(f"adapters.dropout={adapters.dropout}: wanted 0, or the ratio would not be 1 at the start")
    if config.temperature == 0:
        raise ValueError("temperature=0.0: wanted a number above 0; greedy answers have no probabilities to learn from")
    if problems := [*schedule_problems(config), *mix_problems(config.pretraining_mix)]:
        raise ValueError("; ".join(problems))
    if config.warmup_steps >= config.iterations:
        raise ValueError(f"warmup_steps={config.warmup_steps} must be less than iterations={config.iterations}")
    if config.minibatch_size > config.batch_size:
        raise ValueError(f"minibatch_size={config.minibatch_size} must be at most batch_size={config.batch_size}")
    if config.minibatch_size % config.accumulation:
        raise ValueError(f"accumulation={config.accumulation} must divide minibatch_size={config.minibatch_size}")
    if (prompts := count(config.prompts)) * config.samples_per_prompt < config.batch_size:
        each = f" with samples_per_prompt={config.samples_per_prompt}" if config.samples_per_prompt > 1 else ""
        raise ValueError(f"batch_size={config.batch_size} of at most {prompts} prompts{each}: give more of them")


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """An iteration: answers, their scores by the models, and the steps of the policy and, if there is one, the critic.

    Five models stay on the devices, one fewer without a critic; a general reward model, which scores now and then, and
    the average of the policy's weights, if the stage has them. With adapters there are three, in the compute dtype, and
    the adapters of policy and critic.
    """
    models, answers = resident_models(config, model, mesh), config.batch_size
    rows = device_programs.packed_rows(config.minibatch_size, mesh, config.accumulation)
    calls = math.ceil(config.batch_size / config.minibatch_size)
    scores = functools.partial(device_programs.score_log_probabilities, model=model, mesh=mesh)
    steps = configured_steps(config, model, mesh)

    def step(name: str, trained: ResidentModel, head: str, text_rows: int = 0) -> Program:
        batch = _abstract_minibatch(config, rows, text_rows, model.max_length, mesh)
        flops = training_flops(model, rows + text_rows, model.max_length, head, adapter_config(config))
        return device_programs.train_step(
            steps[name], trained, batch, flops, name=f"{name} step", resident=models.resident, calls=calls
        )

    critic_programs = [
        program
        for critic in models.critic
        for program in (
            device_programs.score_tokens("critic values", model, mesh, critic, models.resident, answers),
            step("critic", critic, "scalar"),
        )
    ]
    programs = (
        *device_programs.generation(
            config, model, mesh, models.policy, models.resident,
            top_p=1.0, samples_per_prompt=config.samples_per_prompt, answers=answers,
        ),
        *reward_scores(model, mesh, (models.helpfulness,), models.beside_helpfulness, answers),
        *reward_scores(model, mesh, models.safety, models.resident, answers),
        *reward_scores(model, mesh, models.general, models.resident),
        scores("policy log-probabilities", of=models.policy, resident=models.resident, rows=answers),
        scores("reference log-probabilities", of=models.reference, resident=models.beside_reference, rows=answers),
        *critic_programs,
        step("policy", models.policy, "language", _text_rows(config, mesh)),
    )  # fmt: skip
    assumption = f"each prompt with its answer fills a row of {model.max_length} tokens: {rows} rows a minibatch"
    return DeviceWork(programs, unit="iteration", assumptions=(device_programs.LONGEST_PROMPTS, assumption))


def _text_rows(config: ConfigDict, mesh: Mesh) -> int:
    """How many rows of text each of the policy's steps reads."""
    if config.pretraining_mix.coefficient == 0:
        return 0
    return device_programs.packed_rows(config.pretraining_mix.batch_size, mesh, config.accumulation)


def _abstract_minibatch(
    config: ConfigDict, rows: int, text_rows: int, length: int, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """What `Rollouts.minibatch` returns, with rows of text where there are some."""
    rows_of, whole = device_programs.rows_of, ("tokens", "segment_ids", "positions")
    fields = rows_of((*whole, *(("text_mask",) if text_rows else ())), rows + text_rows, length)
    fields |= rows_of(token_fields(config), rows + text_rows, length, jnp.float32)
    return device_programs.abstract_batch(fields, mesh)
