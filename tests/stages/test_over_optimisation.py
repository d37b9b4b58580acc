"""PPO exploits a flawed reward, and the general reward model, trained on honest comparisons, notices.

All stages are the real ones, with the smallest network: an answer is eight letters, and what is good about it is the
share of them before "@" in ASCII.
"""

import random
import re

import jax
import numpy as np
import pytest
from absl import logging
from ml_collections import ConfigDict

from llama2_jax.data.preferences import encode_comparisons
from llama2_jax.objectives.ranking import MARGINS
from llama2_jax.pipeline import encoding
from llama2_jax.pipeline.held_out_scores import held_out_accuracy, score_comparisons
from llama2_jax.stages import ppo, reward_model
from llama2_jax.training.metrics import read_metrics
from llama2_jax.training.model_folder import load_model
from tests.random_model import random_arrays, train_like
from tests.smallest import Letters, smallest_model, smallest_runtime

pytestmark = pytest.mark.slow

MODEL = smallest_model(max_length=32)
OPTIMIZER = {"b1": 0.9, "b2": 0.95, "eps": 1e-5, "weight_decay": 0.1, "clip": 1.0}
SCHEDULE = {
    "learning_rate": 1e-2, "warmup_steps": 0, "warmup_fraction": 0.0, "final_learning_rate_fraction": 1.0,
    "optimizer": OPTIMIZER, "accumulation": 1, "log_every": 10, "save_every": 100,
}  # fmt: skip


def quality(answer):
    return sum(letter < "@" for letter in answer) / 8


def prompts(*, seed, count):
    del seed
    letters = ["abcdef"[index % 6] for index in range(count)]
    return [
        {"messages": [{"role": "user", "content": letter}], "safety": index % 4 == 0}
        for index, letter in enumerate(letters)
    ]


def open_comparisons(*, seed, count):
    """Of two answers the one with more good letters is preferred; they are of all qualities."""
    rng = random.Random(seed)
    records = []
    while len(records) < count:
        one, other = (
            "".join(chr(rng.randrange(3, 64) if rng.random() < share else rng.randrange(64, 128)) for _ in range(8))
            for share in (rng.random(), rng.random())
        )
        if abs(quality(one) - quality(other)) > 0.1:
            chosen, rejected = sorted((one, other), key=quality, reverse=True)
            messages = [{"role": "user", "content": rng.choice("abcdef")}]
            records.append({"messages": messages, "chosen": chosen, "rejected": rejected, "domain": "helpfulness"})
    return records


def honest(rows, helpfulness, safety):
    del helpfulness, safety
    return [6 * quality(row["response"]) - 3 for row in rows]


def flawed(rows, helpfulness, safety):
    """It knows what is good too, but a small letter brings four times as much."""
    good = honest(rows, helpfulness, safety)
    small = [sum("a" <= letter <= "z" for letter in row["response"]) for row in rows]
    return [one + 3 * count - 6 for one, count in zip(good, small, strict=True)]


def made(function, kind, count):
    return {"made": {"function": f"{__name__}.{function}", "format": kind, "arguments": {"count": count}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models of random weights, and the general reward model, trained by its stage."""
    folder = tmp_path_factory.mktemp("run")
    for seed, name in enumerate(("policy", "helpfulness", "safety")):
        head = "language" if name == "policy" else "scalar"
        (folder / name).mkdir()
        train_like(folder / name, MODEL, random_arrays(MODEL, head, seed), head)
    config = ConfigDict({
        "kind": "general", "round": 0, "margin": "none", "safety_auxiliary_weight": 0.0, "pairs_per_batch": 32,
        "epochs": 4, "length": 32, "too_long": "raise", "preferences": {},
        "open_preferences": made("open_comparisons", "preferences", 300),
        "test_preferences": {}, **SCHEDULE,
    })  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding.Tokenizer, "load", lambda path: Letters())
        runtime = smallest_runtime(folder / "general", model=MODEL)
        inputs = {"tokenizer": folder, "start": folder / "policy", "annotations": ()}
        results = reward_model.run(config, inputs, runtime)
    assert results["kind"] == "general" and results["comparisons"] == {"helpfulness": 300, "safety": 0}
    return folder


@pytest.fixture
def train(folder, tmp_path, monkeypatch):
    """Runs PPO for a reward; returns its results, the rows of its metrics, and its warnings."""
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda path: Letters())
    warnings = []

    def warn(message, *arguments):
        if "over-optimisation" in message:  # a slow disk is no matter here
            warnings.append(message % arguments)

    monkeypatch.setattr(logging, "warning", warn)

    def run(reward, general=True, **changes):
        config = ConfigDict({
            "prompts": made("prompts", "prompts", 96), "held_out_prompts": made("prompts", "prompts", 64),
            "reward": {"function": f"{__name__}.{reward}"}, "iterations": 8, "batch_size": 24, "minibatch_size": 12,
            "kl_coefficient": 0.0, "clip": 0.2, "value_clip": 0.2, "gamma": 1.0, "lambda_": 0.95, "temperature": 1.0,
            "max_new_tokens": 8, "missing_eos_penalty": 0.0, "whiten_advantages": True, "critic_warmup_iterations": 1,
            "whiten_by_tag": False,
            "critic_learning_rate": 1e-2, "evaluate_every": 4, "patience": 9, **SCHEDULE, "learning_rate": 3e-2,
            "guarded": False, "advantages": "critic", "samples_per_prompt": 1,
            "pretraining_mix": {"coefficient": 0.0}, "ema_decay": 0.0,
            **changes,
        })  # fmt: skip
        roles = ("tokenizer", "policy", "helpfulness", "safety", *(("general",) if general else ()))
        runtime = smallest_runtime(tmp_path, model=MODEL)
        results = ppo.run(config, {role: folder / role for role in roles}, runtime)
        return results, list(read_metrics(tmp_path / "metrics.jsonl")), warnings

    return run


def curve(rows, name):
    return {row["step"]: row[name] for row in rows if name in row}


def test_a_flawed_reward_is_over_optimised_and_the_alarm_rings_once(train):
    results, rows, warnings = train("flawed")
    reward, general = curve(rows, "held_out_reward"), curve(rows, "held_out_general_reward")
    assert list(reward) == list(general) == [0, 4, 8]
    assert reward[8] > reward[0] + 0.1 and general[8] < general[0] - 0.5
    first = results["over_optimisation"]
    assert first in (4, 8) and reward[first] > reward[0] and general[first] < general[0]
    (warning,) = warnings
    assert warning.startswith(f"PPO iteration {first}: over-optimisation. Since the start, optimised reward +")
    assert re.search(r"general reward -[\d.]+ \(standard error [\d.]+\), over 48 prompts", warning)
    assert "kl_coefficient" in warning and "iterations" in warning and "new comparisons" in warning
    # The policy that is kept has the highest reward, and answers worse than the start.
    assert results["held_out_gain"] > 0
    assert results["held_out_general_change"] < -2 * results["held_out_general_change_standard_error"] < 0


def test_none_for_which_the_general_reward_fell_is_kept_though_the_run_goes_on(train):
    results, rows, warnings = train("flawed", guarded=True, evaluate_every=2)
    reward, general = curve(rows, "held_out_reward"), curve(rows, "held_out_general_reward")
    first = results["over_optimisation"]
    assert len(warnings) == 1 and results["iterations"] == 8 > first
    before = {iteration: value for iteration, value in reward.items() if iteration < first}
    assert results["best_iteration"] in before and reward[first] > max(before.values())
    # It is better by the measure that nothing is trained for.
    assert general[results["best_iteration"]] > general[first]


def test_an_honest_reward_is_not(train):
    results, rows, warnings = train("honest", guarded=True)
    assert results["iterations"] == 8
    general = curve(rows, "held_out_general_reward")
    assert results["held_out_gain"] > 2 * results["held_out_gain_standard_error"]
    assert results["over_optimisation"] is None and not warnings
    assert general[8] > general[0] and results["held_out_general_change"] > 0


def test_without_a_general_model_nothing_is_said_of_it(train):
    results, rows, warnings = train("flawed", general=False, iterations=2)
    assert not curve(rows, "held_out_general_reward") and not warnings
    assert results["over_optimisation"] is results["held_out_general_change"] is None


def test_the_general_model_knows_what_is_good(folder):
    """Else the tests above would say little: it tells answers apart that it has not seen."""
    records = open_comparisons(seed=9, count=100)
    encoded = encode_comparisons(
        Letters(), records, margins=MARGINS["none"], source="test", length=32, too_long="raise"
    )
    params = jax.device_get(load_model(folder / "general", head="scalar").params)
    table = held_out_accuracy(score_comparisons(MODEL, params, Letters(), records, encoded))
    assert table["all"]["accuracy"] > 0.85 and np.isfinite(table["all"]["standard_error"])
