"""Reward models as annotators."""

import types

import numpy as np
import pytest

from llama2_jax.annotation import reward_model
from llama2_jax.annotation.reward_model import annotate, prefer_higher_reward, rank, rating
from llama2_jax.data.records import RATINGS


@pytest.fixture(autouse=True)
def scores(monkeypatch):
    """Models that score an answer by its last id, in tenths: for helpfulness as it is, for safety less 5."""

    def load_model(folder, mesh, head):
        return types.SimpleNamespace(config=None, params=5.0 * (folder == "safety"))

    monkeypatch.setattr(reward_model, "load_model", load_model)
    monkeypatch.setattr(
        reward_model,
        "rewards",
        lambda config, params, sequences: np.asarray([ids[-1] / 10 - params for ids in sequences], np.float32),
    )


def comparison(a, b, domain="helpfulness", prompt=7):
    return {"prompt_tokens": [1, prompt], "tokens_a": [9, a], "tokens_b": [9, b], "domain": domain}


def label(comparisons, **options):
    folders = {"annotator_helpfulness": "helpfulness", "annotator_safety": "safety"}
    return annotate(comparisons, **{"stage_seed": 0, "mesh": None, **folders, **options})


@pytest.mark.parametrize(
    ("probability", "expected"),
    [
        (0.5, "negligibly_better"),
        (0.599, "negligibly_better"),
        (0.6, "slightly_better"),
        (0.749, "slightly_better"),
        (0.75, "better"),
        (0.899, "better"),
        (0.9, "significantly_better"),
        (1.0, "significantly_better"),
    ],
)
def test_the_rating_says_how_sure_the_model_is(probability, expected):
    assert rating(probability) == expected
    assert expected in RATINGS


def test_without_noise_the_higher_score_is_preferred_wherever_it_stands():
    pairs = [(80, 20), (55, 50), (10, 90), (47, 48)]
    forth = label([comparison(a, b) for a, b in pairs], noise=False)
    back = label([comparison(b, a) for a, b in pairs], noise=False)
    assert [one["preferred"] for one in forth] == ["a", "a", "b", "b"]
    assert [one["preferred"] for one in back] == ["b", "b", "a", "a"]
    assert [one["rating"] for one in forth] == [one["rating"] for one in back]


def test_without_noise_a_label_does_not_depend_on_the_others():
    pairs = [comparison(80, 20), comparison(30, 50, "safety"), comparison(10, 90)]
    alone = [label([one], noise=False)[0] for one in pairs]
    assert label(pairs, noise=False) == alone
    assert label(pairs[::-1], noise=False) == alone[::-1]


def test_with_noise_the_preferred_side_is_drawn_from_the_scores():
    pairs = [comparison(60, 50, prompt=prompt) for prompt in range(4000)]
    labels = label(pairs)
    share = np.mean([one["preferred"] == "a" for one in labels])
    # sigmoid(1) = 0.731, with a standard deviation of 0.007; five of them.
    assert abs(share - 1 / (1 + np.exp(-1))) < 0.035
    assert labels == label(pairs)


def test_the_noise_depends_on_the_comparison_and_not_on_its_place():
    pairs = [comparison(60, 50, prompt=prompt) for prompt in range(200)]
    labels = label(pairs)
    assert label(pairs[::-1]) == labels[::-1]
    assert label(pairs[:1] + pairs) == labels[:1] + labels


def test_the_noise_prefers_the_same_answer_on_either_side():
    pairs = [(comparison(60, 50, prompt=prompt), comparison(50, 60, prompt=prompt)) for prompt in range(200)]
    for forth, back in zip(*map(label, zip(*pairs, strict=True)), strict=True):
        assert (forth["preferred"] == "a") == (back["preferred"] == "b")
        assert forth["rating"] == back["rating"]


def test_each_round_has_noise_of_its_own():
    pairs = [comparison(60, 50, prompt=prompt) for prompt in range(2000)]
    first, second = (np.asarray([one["preferred"] == "a" for one in label(pairs, stage_seed=seed)]) for seed in (1, 2))
    # The correlation of 2000 independent pairs has a standard deviation of 0.022; five of them.
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.11


def test_safety_is_labelled_in_its_domain_alone_by_the_safety_model():
    helpful, safe, mixed, unsafe = label(
        [comparison(90, 90), comparison(90, 60, "safety"), comparison(40, 60, "safety"), comparison(10, 40, "safety")],
        noise=False,
    )
    assert helpful["safety"] is None
    assert safe["safety"] == {"a": True, "b": True}
    assert mixed["safety"] == {"a": False, "b": True}
    assert unsafe["safety"] == {"a": False, "b": False}


def test_what_is_called_safe_may_be_stricter():
    (one,) = label([comparison(60, 90, "safety")], noise=False, safe_above=0.9)
    # sigmoid(1) = 0.73 and sigmoid(4) = 0.98.
    assert one["safety"] == {"a": False, "b": True}


def test_no_comparisons():
    assert label([]) == []


def test_an_answers_known_reward_decides():
    rows = [
        {"rewards_a": {"combined": 0.95, "general": -1.0}, "rewards_b": {"combined": 0.5, "general": 2.0}},
        {"rewards_a": {"combined": 1.0, "general": 0.1}, "rewards_b": {"combined": 1.0, "general": 0.0}},
    ]
    labels = prefer_higher_reward(rows)
    # The logits differ by log 19: a probability of 0.95.
    assert [(one["preferred"], one["rating"]) for one in labels] == [
        ("a", "significantly_better"), ("tie", "negligibly_better"),
    ]  # fmt: skip
    assert [one["preferred"] for one in prefer_higher_reward(rows, reward="general")] == ["b", "a"]


def test_an_answer_without_the_reward_is_named():
    row = {"rewards_a": {"combined": 0.9, "general": 0.1}, "rewards_b": {"combined": 0.5}}
    with pytest.raises(ValueError, match=r"comparison 0: answer b has no reward 'general'; it has \['combined'\]"):
        prefer_higher_reward([row], reward="general")


def to_rank(scores, domain="helpfulness", prompt=7):
    return {"prompt_tokens": [1, prompt], "tokens": [[9, score] for score in scores], "domain": domain}


def ranks(rows, **options):
    folders = {"annotator_helpfulness": "helpfulness", "annotator_safety": "safety"}
    return [one["ranks"] for one in rank(rows, **{"stage_seed": 0, "mesh": None, **folders, **options})]


def test_without_noise_answers_are_ranked_by_their_scores_and_equal_ones_tied():
    rows = [to_rank([20, 90, 20, 50]), to_rank([10, 80], "safety"), to_rank([3, 2, 1])]
    assert ranks(rows, noise=False) == [[3, 1, 3, 2], [2, 1], [1, 2, 3]]
    assert ranks(rows[::-1], noise=False) == [[1, 2, 3], [2, 1], [3, 1, 3, 2]]


def test_with_noise_each_two_answers_are_in_the_order_of_the_bradley_terry_model():
    rows = [to_rank([60, 50, 30], prompt=prompt) for prompt in range(4000)]
    drawn = np.asarray(ranks(rows))
    assert sorted(set(map(tuple, drawn.tolist()))) == [(1, 2, 3), (1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1)]
    for (one, other), difference in {(0, 1): 1.0, (1, 2): 2.0, (0, 2): 3.0}.items():
        share = np.mean(drawn[:, one] < drawn[:, other])
        # With a standard deviation of at most 0.007; five of them.
        assert abs(share - 1 / (1 + np.exp(-difference))) < 0.035
    assert ranks(rows) == drawn.tolist() != ranks(rows, stage_seed=1)


def test_equal_answers_are_tied_with_noise_too_and_ranks_are_whole_numbers():
    ((first, second, other),) = ranks([to_rank([60, 60, 90])])
    assert first == second != other and {type(one) for one in (first, second, other)} == {int}
    assert ranks([]) == []
