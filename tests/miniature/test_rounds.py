"""Simulated RLHF without a network: the world leaves something to gain in every round, not all in the first."""

import dataclasses
import itertools
import statistics

import pytest

from llama2_jax.miniature.answers import VENDOR, answer_to
from llama2_jax.miniature.judge import judge
from llama2_jax.miniature.prompts import evaluation_prompts, prompts
from llama2_jax.miniature.streams import stream

PARTS = ("opening", "sentence", "reason", "offer", "plain", "right", "true_reason", "safe")
# A small model knows less than the vendors whose answers it was fine-tuned on.
FINE_TUNED = dataclasses.replace(VENDOR, right=0.45)
REWARD_NOISE = 0.2  # what a reward model is off by, in units of helpfulness


def measure(manner, rng):
    """Mean helpfulness on harmless prompts and the share of violations on unsafe ones."""
    helpfulness, violations = [], []
    for prompt in evaluation_prompts(seed=0, count=600):
        verdict = judge(prompt["messages"], answer_to(prompt["messages"], manner, rng, seed=0), seed=0)
        (violations if prompt["safety"] else helpfulness).append(
            verdict.violation if prompt["safety"] else verdict.helpfulness
        )
    return statistics.mean(helpfulness), statistics.mean(violations)


def best_of_four(manner, batch, rng):
    """The manner of the best of four answers by a noisy reward: what fine-tuning on them would teach at best."""
    kept = {part: [] for part in PARTS}
    for prompt in prompts(seed=0, count=900, batch=batch, multi_turn=0):
        candidates = []
        for _ in range(4):
            bits = {part: float(rng.random() < getattr(manner, part)) for part in PARTS}
            answer = answer_to(prompt["messages"], dataclasses.replace(manner, **bits), rng, seed=0)
            verdict = judge(prompt["messages"], answer, seed=0)
            worth = verdict.safety if prompt["safety"] else verdict.helpfulness
            candidates.append((worth + rng.gauss(0, REWARD_NOISE), bits))
        best = max(candidates, key=lambda candidate: candidate[0])[1]
        for part in PARTS:
            if (part == "safe") == prompt["safety"]:
                kept[part].append(best[part])
    return dataclasses.replace(manner, **{part: statistics.mean(bits) for part, bits in kept.items()})


@pytest.mark.slow
def test_five_rounds_of_rejection_sampling_gain_gradually():
    rng = stream(0, "test rounds")
    manner, helpfulness, violations = FINE_TUNED, [], []
    for batch in (1, 2, 3, 4, 5):
        measured = measure(manner, rng)
        helpfulness.append(measured[0])
        violations.append(measured[1])
        manner = best_of_four(manner, batch, rng)
    assert 0.45 < helpfulness[0] < 0.6 and 0.3 < violations[0] < 0.55
    assert helpfulness[1] < 0.75
    gains = [after - before for before, after in itertools.pairwise(helpfulness)]
    assert all(gain > 0.01 for gain in gains)
    assert violations[1] < 0.25
