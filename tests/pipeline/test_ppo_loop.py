"""PPO's loop without a model: what its guards see, whose evaluations count, and what a minibatch is rounded to."""

import dataclasses
import functools
import json
import types

import numpy as np
import pytest
from ml_collections import ConfigDict

from llama2_jax.evaluation.over_optimisation import Rewards
from llama2_jax.pipeline import general_reward, ppo_loop
from llama2_jax.pipeline.ppo_loop import Progress
from llama2_jax.pipeline.ppo_steps import PolicyObjective, ppo_critic_step, ppo_policy_step
from llama2_jax.pipeline.trainable import Trainable
from llama2_jax.training.optimizer import OptimizerConfig
from tests.smallest import smallest_model, smallest_runtime


def evaluated(rewards, warmup):
    """The progress after an evaluation following each iteration, as resumed from its checkpoint each time."""
    progress = Progress()
    for iteration, reward in enumerate(rewards):
        meta = dataclasses.asdict(progress)
        progress = Progress(**{**meta, "iteration": iteration}).with_evaluation(reward, warmup)
        yield progress


def test_evaluations_while_the_critic_warms_up_use_up_no_patience():
    """evaluate_every=1, critic_warmup_iterations=5: the first policy step is in the sixth iteration."""
    waited = [progress.waited for progress in evaluated([0.5] * 9, warmup=5)]
    assert waited == [0, 0, 0, 0, 0, 0, 1, 2, 3]


def test_without_a_warm_up_every_evaluation_but_the_first_counts():
    assert [progress.waited for progress in evaluated([0.5] * 4, warmup=0)] == [0, 1, 2, 3]


def test_a_better_policy_renews_the_patience_and_the_first_may_stay_the_best():
    *_, better = evaluated([0.5, 0.5, 0.4, 0.6, 0.5], warmup=1)
    assert (better.best, better.best_iteration, better.waited, better.first) == (0.6, 3, 1, 0.5)
    *_, worse = evaluated([0.5, 0.5, 0.4, 0.4], warmup=1)
    assert (worse.best, worse.best_iteration, worse.waited) == (0.5, 0, 2)


@pytest.mark.parametrize("reward", [np.nan, np.inf])
def test_a_held_out_reward_that_is_not_a_number_ends_the_run(reward):
    with pytest.raises(FloatingPointError, match="after PPO iteration 2 the mean reward on the held-out prompts is"):
        list(evaluated([0.5, 0.6, reward], warmup=0))


def alarmed(*evaluations):
    """The iterations of the alarm, with a checkpoint between any two evaluations."""
    progress = Progress()
    for iteration, (optimised, general) in enumerate(evaluations):
        meta = json.loads(json.dumps(dataclasses.asdict(progress)))
        progress = Progress(**{**meta, "iteration": iteration}).with_alarm(Rewards(optimised, general), HARMLESS)
        yield progress.over_optimised


HARMLESS = [{"safety": False}] * 3
START = [0.1, 0.2, 0.3], [3.0, 2.0, 1.0]
RISEN, FALLEN = [0.3, 0.5, 0.5], [1.0, 0.5, -1.0]


def test_the_alarm_compares_with_the_start_and_names_the_first_iteration_at_which_it_rings(monkeypatch):
    warnings = []
    monkeypatch.setattr(general_reward.logging, "warning", lambda *message: warnings.append(message))
    found = alarmed(START, (RISEN, START[1]), (START[0], FALLEN), (RISEN, FALLEN), (RISEN, FALLEN), START)
    assert list(found) == [None, None, None, 3, 3, 3]
    assert len(warnings) == 1, "it says so once"


def test_without_a_general_reward_there_is_no_alarm():
    assert list(alarmed((START[0], None), (RISEN, None))) == [None, None]


HONEST = {"sampler_log_ratio_abs": 1e-5, "reference_log_ratio_abs": 0.0}


@pytest.fixture
def iteration(tmp_path, monkeypatch):
    """Runs one iteration of two minibatches on experience with given metrics and steps with given |log ratios|."""

    def run(number=1, metrics=(), log_ratios=(1e-5, 0.5), warmup=0, accumulation=1, longest=16, text=None):
        rows, ratios = [], iter(log_ratios)

        def minibatches(order, size, length, row_multiple):
            count = len(order) // size
            rows.extend([(row_multiple, length)] * count)
            return [{"tokens": np.zeros((row_multiple, length), np.int32)}] * count

        experience = types.SimpleNamespace(
            responses=[None] * 8, metrics={**HONEST, **dict(metrics)}, minibatches=minibatches, longest=longest
        )

        def step(state, batch, rate, numbers):
            return state, numbers()

        steps = {
            "policy": functools.partial(step, numbers=lambda: {"loss": 0.0, "log_ratio_abs": next(ratios)}),
            "critic": functools.partial(step, numbers=lambda: {"loss": 0.0}),
        }
        monkeypatch.setattr(ppo_loop, "configured_steps", lambda *_: steps)
        config = ConfigDict({
            "minibatch_size": 4, "accumulation": accumulation, "critic_warmup_iterations": warmup, "iterations": 9,
            "critic_learning_rate": 1e-3, "learning_rate": 1e-3, "warmup_steps": 0, "warmup_fraction": 0.0,
            "final_learning_rate_fraction": 1.0, "advantages": "critic",
        })  # fmt: skip
        environment = types.SimpleNamespace(rollouts=lambda policy, critic, iteration: experience, text=text)
        states = dict.fromkeys(("policy", "critic"), types.SimpleNamespace(params=None))
        models = dict.fromkeys(states, Trainable(None))
        runtime = smallest_runtime(tmp_path, model=smallest_model(max_length=960))
        _, row = ppo_loop._iteration(config, models, states, environment, number, runtime)
        return row, rows

    return run


def test_only_the_first_minibatch_has_to_agree_and_what_differs_is_logged(iteration):
    row, _ = iteration()
    assert row["sampler_log_ratio_abs"] == 1e-5 and row["policy_log_ratio_abs"] == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize("difference", [2e-3, np.nan])
@pytest.mark.parametrize("number", [0, 4], ids=["in the warm-up", "after it"])
def test_the_sampler_is_compared_with_the_scorer_in_every_iteration(iteration, number, difference):
    with pytest.raises(AssertionError, match=f"PPO iteration {number}: the sampler's and the scorer's"):
        iteration(number, {"sampler_log_ratio_abs": difference}, warmup=2)


@pytest.mark.parametrize("difference", [2e-3, np.nan])
def test_the_reference_is_compared_with_the_policy_before_the_first_step_alone(iteration, difference):
    with pytest.raises(AssertionError, match="PPO iteration 0: the policy's and the reference's"):
        iteration(0, {"reference_log_ratio_abs": difference})
    row, _ = iteration(1, {"reference_log_ratio_abs": 2e-3})
    assert row["reference_log_ratio_abs"] == 2e-3, "later it is how far the policy has moved"


@pytest.mark.parametrize("difference", [2e-3, np.nan])
def test_the_training_step_is_compared_with_the_scorer_before_any_step(iteration, difference):
    with pytest.raises(AssertionError, match="PPO iteration 1: the training step's and the scorer's"):
        iteration(log_ratios=(difference, 0.0))


@pytest.mark.parametrize(("accumulation", "multiple"), [(1, 2), (2, 2), (3, 6), (16, 16)])
def test_the_rows_of_a_minibatch_can_be_distributed_to_microbatches(iteration, accumulation, multiple):
    _, rows = iteration(accumulation=accumulation)
    assert [rows_multiple for rows_multiple, _ in rows] == [multiple] * 2


@pytest.mark.parametrize(("longest", "length"), [(16, 256), (256, 256), (257, 960), (960, 960)])
def test_rows_are_as_long_as_the_longest_answer_wants(iteration, longest, length):
    _, rows = iteration(longest=longest)
    assert [row_length for _, row_length in rows] == [length] * 2


def test_rows_beside_text_are_as_long_as_text_s(iteration, monkeypatch):
    monkeypatch.setattr(ppo_loop, "with_text", lambda packed, text, multiple: packed)
    _, rows = iteration(text=iter([{}, {}]))
    assert [length for _, length in rows] == [960] * 2


def test_the_steps_are_those_that_the_config_asks_for(tmp_path):
    runtime = smallest_runtime(tmp_path)
    settings = {"b1": 0.9, "b2": 0.95, "eps": 1e-5, "weight_decay": 0.1, "clip": 1.0}
    config = ConfigDict({
        "optimizer": settings, "clip": 0.1, "value_clip": 0.3, "temperature": 0.7, "accumulation": 4,
        "kl_coefficient": 0.2, "advantages": "critic", "pretraining_mix": {"coefficient": 0.0},
    })  # fmt: skip
    # Steps are cached by what they were made of.
    optimizer = OptimizerConfig(**settings)

    def policy(*objective):
        return ppo_policy_step(runtime.model, optimizer, PolicyObjective(*objective), 4, runtime.mesh, None)

    # With a critic the KL is in the rewards, else it is in the loss.
    assert ppo_loop.configured_steps(config, runtime.model, runtime.mesh) == {
        "policy": policy(0.1, 0.7, 0.0, 0.0),
        "critic": ppo_critic_step(runtime.model, optimizer, 0.3, 4, runtime.mesh, None),
    }
    config.update({"advantages": "group", "pretraining_mix": {"coefficient": 27.8}})
    assert ppo_loop.configured_steps(config, runtime.model, runtime.mesh) == {"policy": policy(0.1, 0.7, 0.2, 27.8)}


@pytest.mark.parametrize(("general", "kept"), [([3.0, 2.0, 1.1], True), ([1.0, 0.5, -1.0], False), (None, True)])
def test_a_policy_that_the_general_model_likes_less_is_not_kept_though_its_reward_rose_by_chance(
    tmp_path, general, kept
):
    """The reward rises by less than its standard error: no alarm, and a larger mean all the same."""
    answers = {0: Rewards([0.1, 0.2, 0.3], general and [3.0, 2.0, 1.0]), 4: Rewards([0.5, 0.2, 0.1], general)}
    saved, progress = {}, Progress()
    config = ConfigDict({
        "evaluate_every": 4, "iterations": 9, "save_every": 9, "critic_warmup_iterations": 0,
        "guarded": True, "advantages": "critic",
    })  # fmt: skip
    session = types.SimpleNamespace(
        metrics=types.SimpleNamespace(write=lambda *_: None), save=lambda *_: None,
        checkpoints=types.SimpleNamespace(latest_step=lambda: None),
    )  # fmt: skip
    best = types.SimpleNamespace(latest_step=lambda: None, save=lambda step, *_, **meta: saved.update({step: meta}))
    states = {
        name: types.SimpleNamespace(step=0, params={}, opt_state=()) for name in ("policy", "critic")
    }  # fmt: skip
    for iteration, rewards in answers.items():
        environment = types.SimpleNamespace(
            data=None, held_out=HARMLESS, held_out_rewards=lambda _, rewards=rewards: rewards
        )
        progress = dataclasses.replace(progress, iteration=iteration)
        models = dict.fromkeys(states, Trainable({}))
        progress = ppo_loop._evaluate_and_save(config, models, states, progress, session, best, environment, False)
    assert progress.over_optimised is None
    assert sorted(saved) == ([0, 4] if kept else [0]) and progress.best_iteration == (4 if kept else 0)
