"""Proximal policy optimisation on top of rejection sampling (section 3.2.3, equations 3 and 4).

Each iteration samples one answer to each prompt of a batch, rewards it by the piecewise rule (logit, whitened over the
batch, less the KL to the starting policy a token), and takes one gradient step a minibatch on the policy and on a
critic of its own, which starts as the helpfulness reward model. The policy with the best reward on held-out prompts is
kept.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.prompts import prompt_batches
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.flops import training_flops
from llama2_jax.pipeline import device_programs
from llama2_jax.pipeline.encoding import encode_prompts, read_records
from llama2_jax.pipeline.model_training import learning_rate, shard_batch
from llama2_jax.pipeline.ppo_steps import ppo_critic_step, ppo_policy_step
from llama2_jax.pipeline.reward_models import abstract_reward_models, load_reward_models, reward_scores
from llama2_jax.pipeline.rollouts import Rollouts, answer_and_score, collect
from llama2_jax.pipeline.runtime import Inputs, Runtime, named_key
from llama2_jax.sharding.mesh import row_multiple
from llama2_jax.text.tokenizer import Tokenizer
from llama2_jax.training.checkpoint_folder import CheckpointError
from llama2_jax.training.checkpoints import Checkpoints
from llama2_jax.training.metrics import MetricsWriter
from llama2_jax.training.model_folder import load_model, save_model_description
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import TrainState, abstract_state, create_state
from llama2_jax.training.watchdog import Watchdog

# How far float32 may take the first minibatch's ratio from 1 and the first KL from 0: the same numbers computed twice,
# packed into other rows. In bfloat16 the same holds to its 8 bits of mantissa.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.2}


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Runs PPO and leaves the best policy in the stage's folder."""
    tokenizer = Tokenizer.load(inputs["tokenizer"] / "tokenizer.model")
    reference = load_model(inputs["policy"], runtime.mesh).params
    reward_models = load_reward_models(inputs, runtime, config.safety_threshold)
    records, prompts = _read_prompts(config.prompts, tokenizer, config, runtime)
    batches = iter(prompt_batches(list(zip(records, prompts, strict=True)), config.batch_size, runtime.seed))
    held_out = _read_prompts(config.held_out_prompts, tokenizer, config, runtime)

    def rollouts(policy: dict, critic: dict, iteration: int) -> Rollouts:
        batch = next(batches)
        return collect(
            config, runtime.model, policy, reference, critic, reward_models,
            [prompt for _, prompt in batch], [record["safety"] for record, _ in batch],
            jax.random.fold_in(named_key(runtime.key, "rollouts"), iteration), tokenizer.eos_id,
        )  # fmt: skip

    def held_out_reward(policy: dict) -> float:
        records, prompts = held_out
        _, _, scores = answer_and_score(
            config, runtime.model, policy, reward_models, prompts, [record["safety"] for record in records],
            named_key(runtime.key, "held out"), tokenizer.eos_id,
        )  # fmt: skip
        return float(scores.combined.mean())

    save_model_description(runtime.folder, runtime.model, "language")
    return _iterate(config, reference, reward_models.helpfulness, batches, rollouts, held_out_reward, runtime)


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> device_programs.DeviceWork:
    """An iteration: answers, their scores by four models, and the steps of policy and critic; five models are held."""
    policy = device_programs.abstract_trained("policy", model, config.optimizer, mesh)
    critic = device_programs.abstract_trained("critic", model, config.optimizer, mesh, "scalar")
    reference, rewards = device_programs.abstract_model("reference", model, mesh), abstract_reward_models(model, mesh)
    held, answers = (policy, critic, reference, *rewards), config.batch_size
    rows = device_programs.packed_rows(config.minibatch_size, mesh)
    steps = math.ceil(config.batch_size / config.minibatch_size)
    batch = _abstract_minibatch(rows, model.max_length, mesh)
    policy_step, critic_step = _configured_steps(config, model, mesh)

    def step(function: Callable, trained: device_programs.ResidentModel, head: str) -> device_programs.Program:
        flops, name = training_flops(model, rows, model.max_length, head), f"{trained.name} step"
        return device_programs.train_step(function, trained, batch, flops, name=name, held=held, calls=steps)

    def logp(of: device_programs.ResidentModel) -> device_programs.Program:
        return device_programs.score_log_probabilities(f"{of.name} log-probabilities", model, mesh, of, held, answers)

    programs = (
        *device_programs.generation(config, model, mesh, policy, held, top_p=1.0, answers=answers),
        *reward_scores(model, mesh, rewards, held, answers),
        logp(policy),
        logp(reference),
        device_programs.score_tokens("critic values", model, mesh, critic, held, answers),
        step(critic_step, critic, "scalar"),
        step(policy_step, policy, "language"),
    )
    assumption = f"each prompt with its answer fills a row of {model.max_length} tokens: {rows} rows a minibatch"
    return device_programs.DeviceWork(
        programs, unit="iteration", assumptions=(device_programs.LONGEST_PROMPTS, assumption)
    )


def _abstract_minibatch(rows: int, length: int, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """What `Rollouts.minibatch` gives."""
    numbers = ("log_probabilities", "advantages", "returns", "values", "mask")
    fields = device_programs.rows_of(("tokens", "segment_ids", "positions"), rows, length)
    return device_programs.abstract_batch(fields | device_programs.rows_of(numbers, rows, length, jnp.float32), mesh)


def _read_prompts(sources: ConfigDict, tokenizer: Tokenizer, config: ConfigDict, runtime: Runtime):
    records = read_records(sources, runtime)
    return encode_prompts(tokenizer, records, runtime.model.max_length - config.max_new_tokens, runtime.stage)


def _iterate(
    config: ConfigDict,
    policy: dict,
    critic: dict,
    batches,
    rollouts: Callable[[dict, dict, int], Rollouts],
    held_out_reward: Callable[[dict], float],
    runtime: Runtime,
) -> dict:
    """The iterations, from where they were cut off, until the count or the patience is used up."""
    optimizer = make_optimizer(OptimizerConfig(**config.optimizer))
    states = {
        "policy": create_state(jax.tree.map(jnp.copy, policy), optimizer),
        # The helpfulness reward model's trunk; its head is zeroed, since 0 is the mean of the whitened rewards to come.
        "critic": create_state(
            {"trunk": jax.tree.map(jnp.copy, critic["trunk"]), "head": jax.tree.map(jnp.zeros_like, critic["head"])},
            optimizer,
        ),
    }
    progress = {"iteration": 0, "evaluated": -1, "best": -1.0, "best_iteration": 0, "waited": 0, "first": None}
    with (
        Checkpoints(runtime.folder / "iterations") as iterations,
        Checkpoints(runtime.folder / "checkpoints") as best,
        MetricsWriter(runtime.folder) as metrics,
        Watchdog(runtime.step_timeout, runtime.stage) as watchdog,
        runtime.interruption.deferred(),
    ):
        begun = iterations.latest_step() is not None
        if begun:
            states, progress = _restore(iterations, states, batches)
        # Where a damaged checkpoint took the run back, a later best is still to be found.
        best.remove_after(progress["iteration"])
        _check_best(best, progress)
        metrics.truncate_after(progress["iteration"] if begun else -1)
        while True:
            iteration = progress["iteration"]
            stops = runtime.interruption.in_any_process()()
            due = iteration % config.evaluate_every == 0 or iteration == config.iterations
            # A run that goes on from a checkpoint of this iteration has been here before.
            if due and progress["evaluated"] < iteration:
                reward = held_out_reward(states["policy"].params)
                metrics.write(iteration, {"held_out_reward": reward})
                progress = _remember(progress, reward)
            if (due or stops or iteration % config.save_every == 0) and iterations.latest_step() != iteration:
                metrics.keep()
                _save(iterations, states, batches, progress)
            # After the other checkpoint: a run that was cut off between the two finds here what is still to be saved.
            if progress["best_iteration"] == iteration and best.latest_step() != iteration:
                best.save(iteration, states["policy"], meta={"held_out_reward": progress["best"]})
            if stops:
                raise runtime.interruption.stopped(
                    f"{runtime.stage} is saved after iteration {iteration} of {config.iterations}"
                )
            if iteration == config.iterations or progress["waited"] >= config.patience:
                break
            states, row = _iteration(config, states, rollouts, iteration, runtime)
            metrics.write(iteration + 1, row)
            watchdog.finished(iteration + 1)
            progress = {**progress, "iteration": iteration + 1}
    return {
        "iterations": progress["iteration"],
        "best_iteration": progress["best_iteration"],
        "held_out_reward_before": progress["first"],
        "held_out_reward": progress["best"],
        "stopped_early": progress["iteration"] < config.iterations,
    }


def _check_best(best: Checkpoints, progress: dict) -> None:
    """The best policy so far must be there, unless it is the one of this iteration, which is still to be saved."""
    if progress["best_iteration"] < progress["iteration"] and best.latest_step() != progress["best_iteration"]:
        raise CheckpointError(
            f"the best policy so far, of iteration {progress['best_iteration']}, is not in {best.folder} or damaged, "
            "and can not be made again: bring its files back, or run the stage again (--redo)"
        )


def _remember(progress: dict, reward: float) -> dict:
    better = reward > progress["best"]
    return {
        **progress,
        "evaluated": progress["iteration"],
        "first": reward if progress["first"] is None else progress["first"],
        "best": reward if better else progress["best"],
        "best_iteration": progress["iteration"] if better else progress["best_iteration"],
        "waited": 0 if better else progress["waited"] + 1,
    }


def _iteration(
    config: ConfigDict, states: dict, rollouts: Callable, iteration: int, runtime: Runtime
) -> tuple[dict, dict[str, float]]:
    """Experience, then one gradient step a minibatch; checks that nothing changed between sampling and training."""
    experience = rollouts(states["policy"].params, states["critic"].params, iteration)
    tolerance = TOLERANCE[runtime.model.compute_dtype]
    if iteration == 0 and abs(experience.metrics["kl_per_token"]) > tolerance:
        raise AssertionError(f"the KL to the reference is {experience.metrics['kl_per_token']} before the first step")
    policy_step, critic_step = _configured_steps(config, runtime.model, runtime.mesh)
    order = np.random.default_rng([runtime.seed, iteration]).permutation(len(experience.responses))
    rows = []
    for first in range(0, len(order), config.minibatch_size):
        selected = order[first : first + config.minibatch_size]
        packed = experience.minibatch(selected, runtime.model.max_length, row_multiple(runtime.mesh))
        batch = shard_batch(packed, runtime.mesh)
        row = {}
        critic, critic_metrics = critic_step(states["critic"], batch, config.critic_learning_rate)
        row |= {f"critic_{name}": value for name, value in critic_metrics.items()}
        policy = states["policy"]
        if iteration >= config.critic_warmup_iterations:
            policy, policy_metrics = policy_step(policy, batch, learning_rate(config, config.iterations)(iteration))
            row |= {f"policy_{name}": value for name, value in policy_metrics.items()}
            ratio = float(policy_metrics["ratio_mean"])
            if first == 0 and abs(ratio - 1) > tolerance:
                raise AssertionError(
                    f"iteration {iteration}: the mean ratio at the first minibatch is {ratio}, not 1: sampling and "
                    "training do not compute the same log-probabilities"
                )
        states = {"policy": policy, "critic": critic}
        rows.append(row)
    _check_finite(rows, iteration)
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return states, {**experience.metrics, **means}


def _check_finite(rows: list[dict], iteration: int) -> None:
    bad = sorted({name for row in rows for name, value in row.items() if not np.isfinite(value)})
    if bad:
        raise FloatingPointError(
            f"PPO iteration {iteration}: {', '.join(bad)} is not finite. The last checkpoint is from before it; "
            "lower the learning rates or raise the clipping of the gradient"
        )


def _save(iterations: Checkpoints, states: dict, batches, progress: dict) -> None:
    iterations.save(progress["iteration"], _together(states), batches.get_state(), progress)


def _restore(iterations: Checkpoints, states: dict, batches) -> tuple[dict, dict]:
    restored = iterations.restore(abstract_state(_together(states)))
    batches.set_state(restored.data)
    return {
        name: TrainState(step, restored.state.params[name], opt_state)
        for name, (step, opt_state) in restored.state.opt_state.items()
    }, restored.meta


def _together(states: dict) -> TrainState:
    """Both models' states as one, so that a checkpoint holds them at the same moment.

    Each keeps a step of its own: the policy's lags behind while the critic warms up, and one array given to both
    compiled steps would be used up by the first.
    """
    return TrainState(
        states["critic"].step,
        {name: state.params for name, state in states.items()},
        {name: (state.step, state.opt_state) for name, state in states.items()},
    )


def _configured_steps(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> tuple[Callable, Callable]:
    optimizer = OptimizerConfig(**config.optimizer)
    policy_step = ppo_policy_step(model, optimizer, config.clip, config.temperature, mesh)
    return policy_step, ppo_critic_step(model, optimizer, config.value_clip, mesh)
