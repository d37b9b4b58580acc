"""PPO's iterations (section 3.2.3): experience, gradient steps, evaluation, and the best policy kept."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.evaluation.over_optimisation import Rewards
from llama2_jax.inference.rows import row_length
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import Params
from llama2_jax.pipeline.general_reward import rings_over_optimisation
from llama2_jax.pipeline.model_training import learning_rate, stage_session
from llama2_jax.pipeline.ppo_guards import REFERENCE, SAMPLER, TRAINING, check_agreement, tolerance
from llama2_jax.pipeline.ppo_schedule import critic_warmup, has_critic
from llama2_jax.pipeline.ppo_selection import held_out_means, what_fell
from llama2_jax.pipeline.ppo_states import States, apart, initial_states, kept_policy, together, trained_models
from llama2_jax.pipeline.ppo_steps import PolicyObjective, ppo_critic_step, ppo_policy_step
from llama2_jax.pipeline.pretraining_mix import with_text
from llama2_jax.pipeline.rollouts import Rollouts
from llama2_jax.pipeline.runtime import Runtime
from llama2_jax.pipeline.trainable import Trainable, adapter_config
from llama2_jax.sharding.batches import shard_batch
from llama2_jax.sharding.mesh import row_multiple
from llama2_jax.training.averaging import update_average
from llama2_jax.training.checkpoint_folder import CheckpointError
from llama2_jax.training.checkpoints import Checkpoints
from llama2_jax.training.optimizer import OptimizerConfig
from llama2_jax.training.progress import progress_bar
from llama2_jax.training.session import Position, Session
from llama2_jax.training.step import TrainStep


@dataclasses.dataclass(frozen=True)
class Environment:
    """What the policy acts in.

    Attributes:
      data: the position among the batches of prompts, and of text, saved with each checkpoint.
      rollouts: (policy, critic or None, iteration) -> experience on the next batch of prompts.
      held_out: the prompts that decide when to stop, with `safety`.
      held_out_rewards: policy -> the rewards of its answers to them.
      text: batches of pretraining text, one for each of the policy's steps (pretraining_mix.py); None for none.
    """

    data: Position
    rollouts: Callable[[Params, Params | None, int], Rollouts]
    held_out: Sequence[Mapping]
    held_out_rewards: Callable[[Params], Rewards]
    text: Iterator[dict] | None = None


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far PPO is, as a checkpoint notes it.

    Attributes:
      iteration: how many are done.
      evaluated: the last iteration after which the policy was evaluated; -1 before the first evaluation.
      best, best_iteration: the best held-out reward so far, and after which iteration.
      waited: evaluations since then, of a policy in training: not those made while the critic warms up.
      first: the held-out reward before the first iteration.
      start: the rewards of the answers to the held-out prompts before the first iteration.
      over_optimised: after which iteration the alarm rang first; None if it has not.
    """

    iteration: int = 0
    evaluated: int = -1
    best: float = -1.0
    best_iteration: int = 0
    waited: int = 0
    first: float | None = None
    start: Rewards | None = None
    over_optimised: int | None = None

    def with_evaluation(self, reward: float, warmup_iterations: int, may_be_kept: bool = True) -> "Progress":
        """Returns the progress after an evaluation of the policy as it is now.

        Args:
          reward: the policy's mean reward on the held-out prompts.
          warmup_iterations: of the critic; after so many iterations the policy is still the one that PPO started from.
          may_be_kept: whether the policy may be the best, if its reward is.

        Raises:
          FloatingPointError: if the reward is not finite.
        """
        if not np.isfinite(reward):
            raise FloatingPointError(
                f"after PPO iteration {self.iteration} the mean reward on the held-out prompts is {reward}: look at "
                "the reward models and at the reward function (config.reward.function)"
            )
        first = reward if self.first is None else self.first
        evaluated = dataclasses.replace(self, evaluated=self.iteration, first=first)
        if reward > self.best and may_be_kept:
            return dataclasses.replace(evaluated, best=reward, best_iteration=self.iteration, waited=0)
        return dataclasses.replace(evaluated, waited=self.waited + (self.iteration > warmup_iterations))

    def with_alarm(self, rewards: Rewards, prompts: Sequence[Mapping]) -> "Progress":
        """Returns the progress with the first evaluation's rewards, or the iteration of the alarm that they ring.

        Args:
          rewards: of the answers that the policy as it is now gives to the held-out prompts.
          prompts: these, with `safety`; the harmless ones may ring it.
        """
        if self.start is None:
            return dataclasses.replace(self, start=rewards)
        start, now = Rewards(*self.start).harmless(prompts), rewards.harmless(prompts)
        rings = self.over_optimised is None and rings_over_optimisation(start, now, self.iteration)
        return dataclasses.replace(self, over_optimised=self.iteration) if rings else self


def iterate(
    config: ConfigDict, policy: Params, critic: Params | None, environment: Environment, runtime: Runtime
) -> Progress:
    """Runs the iterations, from where they were cut off, until their count or the patience is used up.

    With `guarded` no policy is the best of which ppo_selection.py says that something fell; the iterations go on, since
    a policy may win back what it lost at first.

    Args:
      config: the stage's.
      policy: the parameters to start from; not used up. With adapters they are the policy's frozen ones.
      critic: the reward model whose trunk the critic starts from; not used up. With adapters it is the critic's frozen
        one. None for no critic.
      environment: prompts, experience and evaluation.
      runtime: the stage's; the best policy is left in its folder's checkpoints/.
    """
    models = trained_models(config, policy, critic, runtime)
    states, progress = initial_states(config, models), Progress()
    with (
        stage_session(runtime, "iterations") as session,
        Checkpoints(runtime.folder / "checkpoints") as best,
    ):
        joined, step, meta = session.resume(together(states), environment.data)
        states = apart(joined)
        if step is not None:
            progress = Progress(**meta)
        # Where a damaged checkpoint took the run back, a later best is still to be found.
        best.remove_after(progress.iteration)
        _check_best(best, progress)
        with progress_bar(runtime.stage, progress.iteration, config.iterations, "iteration") as bar:
            while True:
                iteration = progress.iteration
                stops = session.interruption.in_any_process()()
                progress = _evaluate_and_save(config, models, states, progress, session, best, environment, stops)
                if stops:
                    raise session.stopped(iteration, config.iterations, "iteration")
                if iteration == config.iterations or progress.waited >= config.patience:
                    return progress
                states, row = _iteration(config, models, states, environment, iteration, runtime)
                session.metrics.write(iteration + 1, row)
                session.watchdog.finished(iteration + 1)
                bar.update()
                progress = dataclasses.replace(progress, iteration=iteration + 1)


def configured_steps(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> dict[str, TrainStep]:
    """Returns the compiled steps of "policy" and, if there is one, "critic"."""
    optimizer, adapters = OptimizerConfig(**config.optimizer), adapter_config(config)
    objective = PolicyObjective(
        clip=config.clip,
        temperature=config.temperature,
        kl_coefficient=0.0 if has_critic(config) else config.kl_coefficient,
        pretraining_coefficient=config.pretraining_mix.coefficient,
    )
    steps = {"policy": ppo_policy_step(model, optimizer, objective, config.accumulation, mesh, adapters)}
    if has_critic(config):
        steps["critic"] = ppo_critic_step(model, optimizer, config.value_clip, config.accumulation, mesh, adapters)
    return steps


def _evaluate_and_save(
    config: ConfigDict,
    models: Mapping[str, Trainable],
    states: States,
    progress: Progress,
    session: Session,
    best: Checkpoints,
    environment: Environment,
    stops: bool,
) -> Progress:
    """What is due before an iteration: an evaluation, a checkpoint, the best policy."""
    iteration = progress.iteration
    due = iteration % config.evaluate_every == 0 or iteration == config.iterations
    # A run that resumes from a checkpoint of this iteration has evaluated it already.
    if due and progress.evaluated < iteration:
        rewards = environment.held_out_rewards(models["policy"].complete(kept_policy(states).params))
        means = held_out_means(rewards, environment.held_out)
        session.metrics.write(iteration, means)
        progress = progress.with_alarm(rewards, environment.held_out)
        fell = what_fell(Rewards(*progress.start), rewards, environment.held_out) if config.guarded else ()
        progress = progress.with_evaluation(means["held_out_reward"], critic_warmup(config), may_be_kept=not fell)
    saves = due or stops or iteration % config.save_every == 0
    if saves and session.checkpoints.latest_step() != iteration:
        session.save(iteration, together(states), environment.data, dataclasses.asdict(progress))
    # After the other checkpoint: a run that was cut off between the two finds here what is still to be saved.
    if progress.best_iteration == iteration and best.latest_step() != iteration:
        best.save(iteration, kept_policy(states), meta={"held_out_reward": progress.best})
    return progress


def _check_best(best: Checkpoints, progress: Progress) -> None:
    """The best policy so far must be there, unless it is the one of this iteration, which is still to be saved."""
    if progress.best_iteration < progress.iteration and best.latest_step() != progress.best_iteration:
        raise CheckpointError(
            f"the best policy so far, of iteration {progress.best_iteration}, is missing from {best.folder} or "
            "damaged, and cannot be computed again: restore its files, or run the stage again (--redo)"
        )


def _iteration(
    config: ConfigDict,
    models: Mapping[str, Trainable],
    states: States,
    environment: Environment,
    iteration: int,
    runtime: Runtime,
) -> tuple[States, dict[str, float]]:
    """Experience, then one gradient step a minibatch; checks that nothing changed between sampling and training."""
    whole = {name: model.complete(states[name].params) for name, model in models.items()}
    experience = environment.rollouts(whole["policy"], whole.get("critic"), iteration)
    bound = tolerance(runtime.model.compute_dtype, runtime.mesh.devices.flat[0].platform)
    check_agreement(SAMPLER, experience.metrics["sampler_log_ratio_abs"], bound, iteration)
    if iteration == 0:
        check_agreement(REFERENCE, experience.metrics["reference_log_ratio_abs"], bound, iteration)
    steps = configured_steps(config, runtime.model, runtime.mesh)
    steps = {name: models[name].bind(step) for name, step in steps.items()}
    order = np.random.default_rng([runtime.seed, iteration]).permutation(len(experience.responses))
    multiple = row_multiple(runtime.mesh, accumulation=config.accumulation)
    # Rows of text are of the whole context.
    longest = runtime.model.max_length
    length = row_length(experience.longest, longest) if environment.text is None else longest
    states, rows = dict(states), []
    for number, packed in enumerate(experience.minibatches(order, config.minibatch_size, length, multiple)):
        batch, row = shard_batch(packed, runtime.mesh), {}
        if "critic" in steps:
            states["critic"], metrics = steps["critic"](states["critic"], batch, config.critic_learning_rate)
            row |= {f"critic_{name}": value for name, value in metrics.items()}
        if iteration >= critic_warmup(config):
            if environment.text is not None:
                batch = shard_batch(with_text(packed, next(environment.text), multiple), runtime.mesh)
            rate = learning_rate(config, config.iterations)(iteration)
            states["policy"], metrics = steps["policy"](states["policy"], batch, rate)
            row |= {f"policy_{name}": value for name, value in metrics.items()}
            if number == 0:
                check_agreement(TRAINING, float(metrics["log_ratio_abs"]), bound, iteration)
            if "average" in states:
                states["average"] = update_average(states["average"], states["policy"].params, decay=config.ema_decay)
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
