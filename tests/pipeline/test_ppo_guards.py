"""PPO's guards: rounding passes, other probabilities and NaN do not."""

import numpy as np
import pytest

from llama2_jax.pipeline.ppo_guards import (
    REFERENCE,
    SAMPLER,
    TOLERANCE,
    TRAINING,
    check_agreement,
    mean_difference,
    tolerance,
)

MASK = np.asarray([[1, 1, 0], [1, 0, 0]], np.float32)


def test_the_mean_is_over_the_tokens_of_the_mask_and_signs_do_not_cancel():
    one = np.asarray([[0.5, -0.25, 7.0], [-0.75, np.nan, np.inf]], np.float32)
    assert mean_difference(one, np.zeros((2, 3), np.float32), MASK) == 0.5


def test_a_nan_within_the_mask_makes_the_mean_nan():
    one = np.asarray([[0.5, np.nan, 0.0], [0.0, 0.0, 0.0]], np.float32)
    assert np.isnan(mean_difference(one, np.zeros((2, 3), np.float32), MASK))


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def test_a_policy_whose_mean_ratio_is_one_is_still_another_policy():
    """The mean ratio over tokens of the sampling policy is 1 for every policy; the mean |log ratio| is 0 for one."""
    rng = np.random.default_rng(0)
    old, new = (softmax(rng.normal(0, 1, (400, 50))) for _ in range(2))
    mean_ratio = (old * (new / old)).sum(-1).mean()
    mean_abs = (old * np.abs(np.log(new / old))).sum(-1).mean()
    assert mean_ratio == pytest.approx(1)
    with pytest.raises(AssertionError):
        check_agreement(TRAINING, float(mean_abs), TOLERANCE["bfloat16"], 3)


@pytest.mark.parametrize("temperature", [0.5, 0.9, 1.1])
def test_another_sampling_temperature_is_more_than_rounding_in_any_dtype(temperature):
    """Logits as spread as a language model's: an entropy of about 2 nats, of at most 3.9."""
    logits = np.random.default_rng(1).normal(0, 2.5, (400, 50))
    sampled, scored = softmax(logits / temperature), softmax(logits)
    difference = (sampled * np.abs(np.log(sampled / scored))).sum(-1).mean()
    assert difference > TOLERANCE["bfloat16"] > TOLERANCE["float32"]


@pytest.mark.parametrize("difference", [np.nan, np.inf, 0.1000001])
def test_what_rounding_does_not_explain_fails_with_the_place_to_look(difference):
    with pytest.raises(AssertionError, match=r"iteration 7: the sampler's and the scorer's .*config\.temperature"):
        check_agreement(SAMPLER, difference, 0.1, 7)


def test_rounding_passes():
    for pair in (SAMPLER, REFERENCE, TRAINING):
        check_agreement(pair, 0.1, 0.1, 0)
        check_agreement(pair, 0.0, 0.0, 0)


def test_the_tolerance_is_that_of_the_products_on_the_device():
    assert tolerance("float32", "cpu") == TOLERANCE["float32"] < TOLERANCE["bfloat16"]
    assert tolerance("bfloat16", "cpu") == tolerance("bfloat16", "tpu") == TOLERANCE["bfloat16"]
    assert tolerance("float32", "gpu") == tolerance("float32", "tpu") == TOLERANCE["bfloat16"]
