"""PPO with groups in the place of a critic, averaged weights, and text beside answers, on the toy."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from llama2_jax.models.adapters import TARGETS
from llama2_jax.pipeline import ppo_loop
from llama2_jax.stages import ppo
from tests.ppo_toy import MODEL, curve, held_by, shapes, text_mix, trainer

pytestmark = pytest.mark.slow


@pytest.fixture
def train(tmp_path, monkeypatch):
    return trainer(tmp_path, monkeypatch)


GROUPS = {"advantages": "group", "samples_per_prompt": 4, "group_scale": "group"}


def test_groups_of_answers_teach_the_policy_without_a_critic(train):
    results, rows, before, after = train(**GROUPS)
    assert results["held_out_gain"] > 2 * results["held_out_gain_standard_error"] > 0
    assert not [name for row in rows for name in row if name.startswith("critic") or name == "explained_variance"]
    # There is no critic to warm up: the policy moves from the first iteration on, and the checkpoints have it alone.
    assert len(curve(rows, "policy_loss")) == 12 and len(curve(rows, "equal_groups")) == 12
    assert max(curve(rows, "policy_reference_kl")) > 0
    states = ppo_loop.initial_states(train.config, ppo_loop.trained_models(train.config, before, None, train.runtime))
    assert list(states) == ["policy"]
    assert any(not np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (before, after)), strict=True))


def test_without_a_critic_none_is_loaded_sized_or_run(train):
    train(iterations=1, critic_warmup_iterations=0, **GROUPS)
    work = ppo.device_work(train.config, MODEL, train.runtime.mesh)
    assert not [one.name for one in work.programs if "critic" in one.name]
    for program in work.programs:
        assert held_by(program).keys() - {"policy, decoding weights"} == {
            "policy", "reference", "helpfulness", "safety",
        }  # fmt: skip
    (prefill,) = [one for one in work.programs if one.name == "prefill"]
    train.config.samples_per_prompt = 1
    alone = next(
        one for one in ppo.device_work(train.config, MODEL, train.runtime.mesh).programs if one.name == "prefill"
    )
    assert prefill.model_flops < alone.model_flops, "four answers share their prompt's prefill"


def test_the_group_s_answers_are_counted_by_the_batch(train, monkeypatch):
    honest, asked = ppo.collect, []

    def watched(config, frozen, policy, critic, prompts, key):
        assert critic is None
        asked.append(len(prompts.ids))
        return honest(config, frozen, policy, critic, prompts, key)

    monkeypatch.setattr(ppo, "collect", watched)
    train(iterations=2, **GROUPS)
    assert asked == [6, 6], "24 answers, 4 to each prompt"


def test_the_averaged_policy_is_what_is_evaluated_and_kept(train, monkeypatch):
    """Computed here again from the policy after each of its steps."""
    make, policies = ppo_loop.ppo_policy_step, []

    def watched(*arguments):
        step = make(*arguments)

        def run(state, *rest):
            if not policies:
                policies.append(jax.device_get(state.params))
            state, metrics = step(state, *rest)
            policies.append(jax.device_get(state.params))
            return state, metrics

        return run

    monkeypatch.setattr(ppo_loop, "ppo_policy_step", watched)
    results, _, before, after = train(ema_decay=0.8, iterations=4, held_out=[0.0, 1.0, 0.0, 1.0])
    assert results["best_iteration"] == 4 and len(policies) == 1 + 2 * 3
    jax.tree.map(np.testing.assert_array_equal, policies[0], before)
    wanted = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), policies[0])
    for policy in policies[1:]:
        wanted = jax.tree.map(lambda old, new: 0.8 * old + 0.2 * new, wanted, policy)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6), after, wanted)
    moved = [np.abs(one - other).max() for one, other in zip(*map(jax.tree.leaves, (after, policies[-1])), strict=True)]
    assert max(moved) > 1e-3


def test_the_average_is_sized_and_is_no_other_policy_with_adapters(train):
    train(ema_decay=0.8, iterations=1, critic_warmup_iterations=0)
    whole = ppo.device_work(train.config, MODEL, train.runtime.mesh).programs
    assert all(held_by(one)["averaged policy"] == held_by(one)["reference"] for one in whole)
    train.config.adapters = {"rank": 4, "alpha": 8.0, "targets": TARGETS, "dropout": 0.0}
    adapted = ppo.device_work(train.config, MODEL, train.runtime.mesh).programs
    assert all(0 < held_by(one)["averaged policy"] < held_by(whole[0])["reference"] / 2 for one in adapted)


def test_text_is_learnt_beside_the_reward(train):
    results, rows, *_ = train(pretraining_mix=text_mix(1.0))
    losses = curve(rows, "policy_pretraining_loss")
    # Letters by chance are log 128 = 4.9 nats each.
    assert losses[0] > 4 and losses[-1] < losses[0] - 0.5
    assert results["held_out_gain"] > 2 * results["held_out_gain_standard_error"]


def test_with_a_coefficient_of_zero_text_is_neither_read_nor_counted(train, monkeypatch):
    monkeypatch.setattr("tests.ppo_toy.texts", None)
    _, rows, *_ = train(iterations=2, pretraining_mix=text_mix(0.0))
    assert not [name for row in rows for name in row if "pretraining" in name]


def test_the_rows_of_text_are_those_that_were_said_before(train, monkeypatch):
    original, seen = ppo_loop.ppo_policy_step, {}

    def recording(*settings):
        def step(state, batch, rate):
            seen["batch"] = shapes(batch)
            return original(*settings)(state, batch, rate)

        return step

    monkeypatch.setattr(ppo_loop, "ppo_policy_step", recording)
    train(iterations=1, critic_warmup_iterations=0, pretraining_mix=text_mix(1.0))
    monkeypatch.setattr(ppo_loop, "ppo_policy_step", original)
    work = ppo.device_work(train.config, MODEL, train.runtime.mesh)
    program = next(one for one in work.programs if one.name == "policy step")
    assert shapes(program.compile.args[2]).keys() == seen["batch"].keys()
    dtypes = {name: dtype for name, (_, dtype) in shapes(program.compile.args[2]).items()}
    assert dtypes == {name: dtype for name, (_, dtype) in seen["batch"].items()}


@pytest.mark.parametrize(
    ("mix", "absent"),
    [({"coefficient": 1.0}, "sources"), ({"coefficient": 1.0, "sources": {"a": {}}}, "batch_size")],
)
def test_a_mix_without_text_is_refused(train, mix, absent):
    train(iterations=1, critic_warmup_iterations=0)
    config = ConfigDict({**train.config.to_dict(), "pretraining_mix": mix})
    with pytest.raises(ValueError, match=rf"pretraining_mix.coefficient=1.0: wanted pretraining_mix.{absent} too"):
        ppo.check(config, {}, lambda sources: 96)


class CutOff(BaseException):
    """Stands for a kill: no code of the package catches it."""


EVERYTHING = {**GROUPS, "ema_decay": 0.8, "pretraining_mix": text_mix(1.0), "iterations": 6, "evaluate_every": 2}


@pytest.mark.parametrize("changes", [EVERYTHING, {**EVERYTHING, "advantages": "critic"}], ids=["group", "critic"])
def test_a_run_that_was_cut_off_ends_with_the_same_average_and_the_same_text(train, tmp_path, monkeypatch, changes):
    results, rows, _, after = train(**changes)
    (tmp_path / "whole").mkdir()
    for path in ("iterations", "checkpoints", "metrics.jsonl"):
        (tmp_path / path).rename(tmp_path / "whole" / path)
    honest, calls = ppo.collect, []

    def cut(*arguments):
        calls.append(None)
        if len(calls) == 4:
            raise CutOff
        return honest(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(ppo, "collect", cut)
        with pytest.raises(CutOff):
            train(**changes)
    again = train(**changes)
    assert again[0] == results and again[1] == rows
    jax.tree.map(np.testing.assert_array_equal, again[3], after)
