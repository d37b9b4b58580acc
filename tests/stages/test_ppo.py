"""PPO on a toy: the reward rises, what is best is kept, and it stops in time."""

import dataclasses
import gc

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from llama2_jax.models.adapters import TARGETS
from llama2_jax.pipeline import ppo_loop, rollouts
from llama2_jax.pipeline.ppo_steps import PolicyObjective
from llama2_jax.stages import ppo
from llama2_jax.training.optimizer import OptimizerConfig
from tests.ppo_toy import MODEL, curve, half_of_the_letters, held_by, shapes, trainer

pytestmark = pytest.mark.slow


@pytest.fixture
def train(tmp_path, monkeypatch):
    return trainer(tmp_path, monkeypatch)


@pytest.mark.parametrize("quantize", ["", "int4"])
def test_adapters_are_trained_beside_the_frozen_policy_and_critic(train, quantize):
    """Sampler, scorer, training step and reference agree, which PPO checks as it runs; with few bits the base's."""
    adapters = {"rank": 4, "alpha": 8.0, "targets": TARGETS, "dropout": 0.0, "quantize": quantize}
    results, rows, before, after = train(adapters=adapters, held_out=(0.0, 0.1, 0.2, 0.3, 0.0, 0.0))
    assert results["best_iteration"] == 12 and results["trained_parameters"] < results["parameters"]
    agreement = curve(rows, "reference_log_ratio_abs")
    # The policy is the reference until it is trained, in the second iteration.
    assert agreement[1] < 1e-5 < agreement[-1]
    np.testing.assert_array_equal(after["trunk"]["embedding"], before["trunk"]["embedding"])
    assert np.abs(after["trunk"]["layers"]["query"] - before["trunk"]["layers"]["query"]).max() > 1e-3


def test_dropout_of_adapters_is_refused():
    """The policy that is trained must be the one that was sampled."""
    config = ConfigDict({"optimizer": {}, "adapters": {"rank": 4, "dropout": 0.1}})
    with pytest.raises(ValueError, match=r"adapters\.dropout=0\.1: wanted 0"):
        ppo.check(config, {}, len)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_reward_rises_and_the_policy_stays_near_its_start(train):
    results, rows, before, after = train()
    assert results["held_out_reward"] > results["held_out_reward_before"] + 0.1
    assert results["held_out_gain"] == pytest.approx(results["held_out_reward"] - results["held_out_reward_before"])
    assert results["held_out_gain"] > 2 * results["held_out_gain_standard_error"] > 0
    assert np.mean(curve(rows, "reward")[-3:]) > np.mean(curve(rows, "reward")[:2]) + 0.1
    # Nats an answer: of 8 tokens, of which each may come to choose among half of the ids: 8 * log 2 at most.
    kl = curve(rows, "kl")
    assert abs(kl[0]) < 1e-4 and 0 < max(kl) < 8 * np.log(2)
    assert results["iterations"] == 12 and not results["stopped_early"]
    assert any(
        not np.array_equal(one, other) for one, other in zip(*map(jax.tree.leaves, (before, after)), strict=True)
    )


def test_a_high_price_of_the_kl_keeps_the_policy_nearer(train, tmp_path):
    _, free, *_ = train(kl_coefficient=0.0)
    for path in ("iterations", "checkpoints", "metrics.jsonl"):
        (tmp_path / path).rename(tmp_path / f"{path}_of_the_free_one")
    _, bound, *_ = train(kl_coefficient=2.0)
    assert curve(bound, "kl")[-1] < 0.5 * curve(free, "kl")[-1]


def bytes_held():
    """The bytes of all arrays; several of them may be of one buffer."""
    shards = [shard.data for array in jax.live_arrays() for shard in array.addressable_shards]
    return sum({shard.unsafe_buffer_pointer(): shard.nbytes for shard in shards}.values())


def test_what_it_holds_and_runs_is_what_it_said_before(train, monkeypatch):
    original, seen = ppo_loop.ppo_policy_step, {}

    def recording(*settings):
        def step(state, batch, rate):
            seen["bytes"] = bytes_held()
            seen["batch"] = sum(array.nbytes for array in batch.values())
            seen["shapes"] = shapes((state, batch))
            return original(*settings)(state, batch, rate)

        return step

    monkeypatch.setattr(ppo_loop, "ppo_policy_step", recording)
    gc.collect()
    # Here the reward models are played, but for the helpfulness model that the critic starts from.
    before = bytes_held()
    train(iterations=1, critic_warmup_iterations=0)
    monkeypatch.setattr(ppo_loop, "ppo_policy_step", original)
    work = ppo.device_work(train.config, MODEL, train.runtime.mesh)
    program = next(one for one in work.programs if one.name == "policy step")
    held = held_by(program)
    assert held.keys() == {"policy", "critic", "reference", "helpfulness", "safety"}
    others = seen["bytes"] - before - held["policy"] - held["critic"] - seen["batch"]
    assert 0 <= others < held["policy"] / 10, "a few numbers, and no model that it did not speak of"
    function, *arguments = program.compile.args
    assert function is original(MODEL, OptimizerConfig(), PolicyObjective(0.2, 1.0), 1, train.runtime.mesh, None)
    assert shapes(tuple(arguments[:2])) == seen["shapes"]
    train.config.inputs = {"general": "general_reward"}
    programs = {one.name: one for one in ppo.device_work(train.config, MODEL, train.runtime.mesh).programs}
    assert programs.keys() == {one.name for one in work.programs} | {"general scores"}
    assert all(held_by(one)["general"] == held["safety"] for one in programs.values()), "it stays, whatever runs"


def test_while_the_critic_warms_up_the_policy_does_not_move(train):
    _, rows, before, after = train(iterations=2, critic_warmup_iterations=2, evaluate_every=2)
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert not curve(rows, "policy_loss") and len(curve(rows, "critic_loss")) == 2


def test_the_critic_starts_from_the_mean_of_the_whitened_rewards_and_learns_what_prompts_promise(train):
    letter = 1 + len("[INST] ")
    _, rows, *_ = train(
        lambda sequences: np.asarray([2.0 * (sequence[letter] < ord("d")) - 1 for sequence in sequences]),
        critic_warmup_iterations=12,
    )
    # Its values are 0 everywhere: they explain nothing of the returns' variance.
    explained = curve(rows, "explained_variance")
    assert abs(explained[0]) < 1e-3 and explained[-1] > 0.1
    assert curve(rows, "critic_loss")[-1] < 0.9 * curve(rows, "critic_loss")[0]


def test_each_iteration_begins_at_a_ratio_of_one(train, monkeypatch):
    ratios = []
    make = ppo_loop.ppo_policy_step

    def watched(*arguments):
        step = make(*arguments)

        def run(*inputs):
            state, metrics = step(*inputs)
            ratios.append(float(metrics["ratio_mean"]))
            return state, metrics

        return run

    monkeypatch.setattr(ppo_loop, "ppo_policy_step", watched)
    train(iterations=4)
    assert len(ratios) == 2 * 3  # two minibatches in each of three iterations; the first warms up the critic
    # The same log-probabilities computed twice, packed into other rows.
    np.testing.assert_allclose(ratios[::2], 1, atol=1e-5)
    assert all(ratio != 1 for ratio in ratios[1::2])


def test_log_probabilities_of_another_policy_are_noticed_before_the_iteration_s_first_step(train, monkeypatch):
    """The second iteration samples, scores and compares with other weights than those in training."""
    honest, policies = ppo.collect, []

    def other(config, frozen, policy, *rest):
        policies.append(policy)
        if len(policies) == 2:
            policy = jax.tree.map(lambda leaf: 1.5 * leaf, policy)
        return honest(config, frozen, policy, *rest)

    monkeypatch.setattr(ppo, "collect", other)
    with pytest.raises(AssertionError, match=r"PPO iteration 1: the training step's and the scorer's"):
        train()


@pytest.mark.parametrize("fault", ["another temperature", "other weights", "not a number"])
def test_a_sampler_that_does_not_sample_from_the_policy_is_noticed(train, monkeypatch, fault):
    honest = rollouts.sample_answers

    def sample(policy, prompts, sampling, *rest):
        if fault == "another temperature":
            sampling = dataclasses.replace(sampling, temperature=0.5)
        if fault == "other weights":
            policy = dataclasses.replace(policy, params=jax.tree.map(lambda leaf: 1.5 * leaf, policy.params))
        samples = honest(policy, prompts, sampling, *rest)
        if fault == "not a number":
            samples = [dataclasses.replace(one, sampling_logps=one.sampling_logps * np.nan) for one in samples]
        return samples

    monkeypatch.setattr(rollouts, "sample_answers", sample)
    with pytest.raises(AssertionError, match=r"PPO iteration 0: the sampler's and the scorer's"):
        train(iterations=1, evaluate_every=4)


def test_a_reference_that_is_not_the_policy_s_start_is_noticed(train, monkeypatch):
    honest = ppo.collect

    def other(config, frozen, *rest):
        reference = jax.tree.map(lambda leaf: 2 * leaf, frozen.reference)
        return honest(config, dataclasses.replace(frozen, reference=reference), *rest)

    monkeypatch.setattr(ppo, "collect", other)
    with pytest.raises(AssertionError, match=r"PPO iteration 0: the policy's and the reference's"):
        train()


def test_the_policy_with_the_best_held_out_reward_is_kept(train):
    results, _, before, after = train(held_out=[0.0, 2.0, 1.0, 1.0, -1.0, 0.5])
    assert results["best_iteration"] == 4
    assert results["selection_reward"] == pytest.approx(sigmoid(2.0))
    assert results["selection_reward_before"] == pytest.approx(0.5)
    # What is reported as the gain is measured once more, of the policy before and of the best one.
    assert results["held_out_reward_before"] == pytest.approx(sigmoid(-1.0))
    assert results["held_out_reward"] == pytest.approx(sigmoid(0.5))
    assert any(
        not np.array_equal(one, other) for one, other in zip(*map(jax.tree.leaves, (before, after)), strict=True)
    )


def test_a_policy_that_never_gets_better_is_given_up_and_the_start_is_kept(train):
    results, rows, before, after = train(held_out=[1.0, 0.5, 0.5, 0.5], evaluate_every=2, patience=2)
    assert (results["iterations"], results["best_iteration"], results["stopped_early"]) == (4, 0, True)
    assert curve(rows, "held_out_reward") == pytest.approx([sigmoid(x) for x in (1.0, 0.5, 0.5)])
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_the_final_answers_are_drawn_again_and_with_the_same_randomness_for_both_policies(train, monkeypatch):
    """The start stays the best here: both policies are the same, so are their answers, and none is an old one."""
    honest, drawn = ppo.answer_and_score, []

    def watched(config, frozen, policy, prompts, key):
        samples, scores = honest(config, frozen, policy, prompts, key)
        drawn.append([tuple(sample.tokens) for sample in samples])
        return samples, scores

    monkeypatch.setattr(ppo, "answer_and_score", watched)
    results, *_ = train(iterations=1, critic_warmup_iterations=1, evaluate_every=1)
    assert len(drawn) == 4 and drawn[0] == drawn[1], "the evaluations that choose use one draw"
    assert drawn[2] == drawn[3] != drawn[0]
    assert (results["held_out_gain"], results["held_out_gain_standard_error"]) == (0.0, 0.0)


def test_evaluations_while_the_critic_warms_up_do_not_end_the_run(train):
    results, rows, *_ = train(
        held_out=[0.5] * 20, iterations=12, critic_warmup_iterations=5, evaluate_every=1, patience=2
    )
    # The sixth iteration is the first with a policy step: two evaluations later the patience is used up.
    assert results["iterations"] == 7 and results["stopped_early"] and results["best_iteration"] == 0
    assert len(curve(rows, "policy_loss")) == 2


def test_a_reward_that_is_not_a_number_stops_the_run(train):
    calls = []

    def broken(sequences):
        calls.append(None)
        return half_of_the_letters(sequences) * (np.nan if len(calls) == 3 else 1)

    with pytest.raises(FloatingPointError, match=r"PPO iteration 1: .*is not finite"):
        train(broken)
