"""Experience: what belongs to which token, packed and not."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from llama2_jax.models.llama import init_language_model, init_scalar_model
from llama2_jax.pipeline import rollouts
from llama2_jax.pipeline.reward_models import Scores
from llama2_jax.pipeline.rollouts import Frozen, Prompts, Rollouts, collect
from tests.smallest import Letters, smallest_model

FIELDS = ("log_probabilities", "advantages", "returns", "values")


def experience(seed=0, count=6, longest=5):
    """Answers of 1 to 5 tokens to prompts of 2 to 6; the fields are random, also where no token is."""
    rng = np.random.default_rng(seed)
    responses = [rng.integers(3, 128, 1 + index % longest).astype(np.int32) for index in range(count)]
    return Rollouts(
        prompts=[rng.integers(3, 128, rng.integers(2, 7)).tolist() for _ in range(count)],
        responses=responses,
        **{name: rng.normal(size=(count, 8)).astype(np.float32) for name in FIELDS},
        mask=(np.arange(8) < np.asarray([len(one) for one in responses])[:, None]).astype(np.float32),
        metrics={},
    )


@pytest.mark.parametrize("length", [16, 64], ids=["one answer a row", "all in a row"])
def test_what_belongs_to_a_token_stands_where_it_is_predicted(length):
    whole = experience()
    batch = whole.minibatch(range(6), length)
    found = 0
    for row, column in zip(*np.nonzero(batch["mask"]), strict=True):
        # The token that is predicted here is the next one of the same segment.
        assert batch["segment_ids"][row, column] == batch["segment_ids"][row, column + 1] > 0
        assert batch["positions"][row, column + 1] == batch["positions"][row, column] + 1
        target = batch["tokens"][row, column + 1]
        value = batch["advantages"][row, column]
        answer, token = np.argwhere(whole.advantages == value)[0]
        assert whole.responses[answer][token] == target
        for name in FIELDS:
            assert batch[name][row, column] == getattr(whole, name)[answer, token]
        found += 1
    assert found == whole.mask.sum()


def test_each_answer_packed_is_the_answer_alone():
    whole = experience()
    packed = whole.minibatch(range(6), 64)
    rows = {}
    for row in range(len(packed["tokens"])):
        for segment in range(1, packed["segment_ids"][row].max() + 1):
            inside = packed["segment_ids"][row] == segment
            rows[tuple(packed["tokens"][row][inside])] = {name: packed[name][row][inside] for name in (*FIELDS, "mask")}
    assert len(rows) == 6
    for index in range(6):
        alone = whole.minibatch([index], 64)
        inside = alone["segment_ids"][0] == 1
        for name, values in rows[tuple(alone["tokens"][0][inside])].items():
            np.testing.assert_array_equal(alone[name][0][inside], values)


def test_the_minibatches_of_an_iteration_have_as_many_rows_and_lose_nothing():
    whole = experience(count=7)
    order = [6, 0, 3, 1, 5, 2, 4]
    parts = whole.minibatches(order, size=3, length=12, row_multiple=1)
    alone = [whole.minibatch(order[at : at + 3], 12, 1) for at in (0, 3, 6)]
    rows = [len(part["tokens"]) for part in alone]
    assert len(set(rows)) > 1 and [len(part["tokens"]) for part in parts] == [max(rows)] * 3
    for part, expected, filled in zip(parts, alone, rows, strict=True):
        assert part.keys() == expected.keys()
        for name in part:
            np.testing.assert_array_equal(part[name][:filled], expected[name])
            assert not part[name][filled:].any()


def test_only_the_selected_answers_are_in_a_minibatch():
    whole = experience()
    batch = whole.minibatch([4, 1], 16)
    assert batch["mask"].sum() == len(whole.responses[4]) + len(whole.responses[1])
    assert (batch["tokens"] > 0).sum() == sum(len(whole.prompts[i]) + len(whole.responses[i]) for i in (4, 1))


def test_nothing_is_counted_outside_of_answers():
    batch = experience().minibatch(range(6), 16)
    for name in FIELDS:
        assert not batch[name][batch["mask"] == 0].any()


SETTINGS = ConfigDict({
    "temperature": 1.0, "max_new_tokens": 8, "kl_coefficient": 0.01, "gamma": 1.0, "lambda_": 1.0,
    "missing_eos_penalty": 0.0, "whiten_advantages": False, "advantages": "critic", "samples_per_prompt": 1,
    "whiten_by_tag": False,
})  # fmt: skip


class CountsLetters:
    """Stands for the reward models: the reward of an answer is its number of ids below 64."""

    def score(self, rows):
        logit = np.asarray([np.sum(np.asarray(row["tokens"]) < 64) for row in rows], np.float32)
        return Scores(logit, logit, logit)


@pytest.fixture(scope="module")
def models():
    model = smallest_model()
    params = init_language_model(model, jax.random.key(0)), init_language_model(model, jax.random.key(1))
    return model, *params, init_scalar_model(model, jax.random.key(2))


def collected(models, *, same=True, tagged=(), **changes):
    model, policy, other, critic = models
    prompts = [Letters().encode("ab" * (1 + index % 3), bos=True) for index in range(12)]
    config = ConfigDict({**SETTINGS.to_dict(), **changes})
    frozen = Frozen(model, policy if same else other, CountsLetters(), Letters())
    records = [{"messages": [], "safety": index in tagged} for index in range(12)]
    return collect(config, frozen, policy, critic, Prompts(records, prompts), jax.random.key(3))


@pytest.mark.slow
def test_before_the_first_step_the_kl_is_zero_and_the_reward_stands_at_the_last_token(models):
    found = collected(models)
    # The same numbers computed twice.
    assert abs(found.metrics["kl_per_token"]) < 1e-6
    score = np.asarray([np.sum(np.asarray([*p, *r]) < 64) for p, r in zip(found.prompts, found.responses, strict=True)])
    whitened = (score - score.mean()) / score.std()
    for index, response in enumerate(found.responses):
        # With gamma and lambda 1 and no KL the return of every token is the answer's whitened reward.
        np.testing.assert_allclose(found.returns[index, : len(response)], whitened[index], atol=1e-4)
        np.testing.assert_allclose(
            (found.advantages + found.values)[index, : len(response)], whitened[index], atol=1e-4
        )


@pytest.mark.slow
def test_rewards_of_tagged_and_of_other_prompts_are_whitened_apart(models):
    tagged = (1, 4, 5, 9)
    found = collected(models, tagged=tagged, whiten_by_tag=True)
    score = np.asarray([np.sum(np.asarray([*p, *r]) < 64) for p, r in zip(found.prompts, found.responses, strict=True)])
    kind = np.isin(np.arange(12), tagged)
    for index, response in enumerate(found.responses):
        alike = score[kind == kind[index]]
        wanted = (score[index] - alike.mean()) / alike.std()
        np.testing.assert_allclose(found.returns[index, : len(response)], wanted, atol=1e-4)
    # What is reported is the reward as it is.
    assert found.metrics["reward_logit"] == pytest.approx(score.mean(), abs=1e-5)


@pytest.mark.slow
def test_the_kl_to_the_reference_is_taken_off_token_by_token(models):
    without, found = (collected(models, same=False, kl_coefficient=beta) for beta in (0.0, 0.5))
    model, policy, other, _ = models
    assert abs(found.metrics["kl"]) > 0.01
    for index, response in enumerate(found.responses):
        arguments = [found.prompts[index]], [response], 1.0
        (new,), (old,) = (rollouts.response_log_probabilities(model, one, *arguments) for one in (policy, other))
        # The penalty of a token and of all after it, since gamma and lambda are 1; float32 sums.
        penalty = 0.5 * np.cumsum((new - old)[::-1])[::-1]
        taken = (without.returns - found.returns)[index, : len(response)]
        np.testing.assert_allclose(taken, penalty, atol=1e-4)


@pytest.mark.slow
def test_an_answer_without_an_end_is_penalised_where_that_is_asked_for(models):
    plain, strict = (collected(models, missing_eos_penalty=penalty) for penalty in (0.0, 1.5))
    ended = np.asarray([response[-1] == Letters.eos_id for response in plain.responses])
    assert not ended.all()
    expected = np.where(ended, 0.0, 1.5)
    # float32 sums over a few tokens.
    np.testing.assert_allclose((plain.returns - strict.returns)[:, 0], expected, atol=1e-5)


@pytest.mark.slow
def test_whitened_advantages_have_no_mean_and_unit_variance_over_the_answers_tokens(models):
    found = collected(models, whiten_advantages=True)
    inside = found.advantages[found.mask > 0]
    # float32 sums over about a hundred tokens.
    assert abs(inside.mean()) < 1e-5 and abs(inside.std() - 1) < 1e-4
    assert not found.advantages[found.mask == 0].any()


def grouped(models, **changes):
    return collected(
        models, same=False, advantages="group", samples_per_prompt=3, **{"group_scale": "group", **changes}
    )


@pytest.mark.slow
def test_in_groups_an_answer_is_compared_with_the_others_to_its_prompt(models):
    found = grouped((*models[:3], None))
    assert found.values is found.returns is None, "there is no critic"
    assert len(found.responses) == 12 * 3 and len(set(map(tuple, found.prompts))) == 3
    assert any(
        tuple(one) != tuple(other) for one, other in zip(found.responses[::3], found.responses[1::3], strict=True)
    )
    scores = np.asarray(
        [np.sum(np.asarray([*p, *r]) < 64) for p, r in zip(found.prompts, found.responses, strict=True)]
    )
    for first in range(0, 36, 3):
        assert found.prompts[first] == found.prompts[first + 1] == found.prompts[first + 2]
        group = scores[first : first + 3]
        # float32 scores, whitened over the batch before.
        wanted = (group - group.mean()) / (group.std() or 1)
        for index, advantage in enumerate(wanted, start=first):
            size = len(found.responses[index])
            np.testing.assert_allclose(found.advantages[index, :size], advantage, atol=1e-3)
            assert not found.advantages[index, size:].any()
    deviations = [scores[first : first + 3].std() for first in range(0, 36, 3)]
    assert found.metrics["equal_groups"] == np.mean(np.asarray(deviations) == 0)
    assert "explained_variance" not in found.metrics


@pytest.mark.slow
def test_by_the_batch_s_deviation_groups_keep_their_weight(models):
    found = grouped((*models[:3], None), group_scale="batch").advantages[:, 0].reshape(-1, 3)
    np.testing.assert_allclose(found.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(), 1, rtol=1e-4)
    assert found.std(axis=1).max() > 1.2 * found.std(axis=1).min()


@pytest.mark.slow
def test_in_groups_the_kl_is_left_to_the_loss(models):
    """The reference's log-probabilities come with the tokens, and the advantages do not depend on its price."""
    found, dear = (grouped((*models[:3], None), kl_coefficient=beta) for beta in (0.0, 0.5))
    np.testing.assert_array_equal(found.advantages, dear.advantages)
    model, _, other, _ = models
    wanted = rollouts.response_log_probabilities(model, other, found.prompts, found.responses, 1.0)
    batch = found.minibatch(range(36), 64)
    assert {"reference", "advantages"} < batch.keys() and not {"values", "returns"} & batch.keys()
    for index, one in enumerate(wanted):
        np.testing.assert_array_equal(found.reference[index, : len(one)], one)


@pytest.mark.slow
def test_a_critic_may_have_several_answers_to_a_prompt_too(models):
    found = collected(models, samples_per_prompt=2)
    assert len(found.responses) == 24 and found.prompts[::2] == found.prompts[1::2]
    assert found.returns.shape == found.advantages.shape == found.mask.shape
