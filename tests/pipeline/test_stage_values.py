"""A value that makes no sense is refused with its field, before a stage trains for days."""

import pytest

from llama2_jax.pipeline.stage_values import value_problems

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        ({"batch_size": 0}, "batch_size=0: wanted a whole number of at least 1"),
        ({"finetune": {"epochs": 0}}, "finetune.epochs=0: wanted a whole number of at least 1"),
        ({"finetune": {"epochs": -1}}, "finetune.epochs=-1: wanted a whole number of at least 1"),
        ({"epochs": 1.5}, "epochs=1.5: wanted a whole number of at least 1"),
        ({"length": 1}, "length=1: wanted a whole number of at least 2"),
        ({"held_out_batches": -1}, "held_out_batches=-1: wanted a whole number of at least 0"),
        ({"warmup_steps": -1}, "warmup_steps=-1: wanted a whole number of at least 0"),
        ({"compared_prompts": -1}, "compared_prompts=-1: wanted a whole number of at least 0"),
        ({"safety_fraction": 1.5}, "safety_fraction=1.5: wanted a number from 0 to 1"),
        ({"learning_rate": -1e-3}, "learning_rate=-0.001: wanted a number above 0"),
        ({"learning_rate": NAN}, "learning_rate=nan: wanted a finite number"),
        ({"a_field_of_ones_own": INF}, "a_field_of_ones_own=inf: wanted a finite number"),
        ({"final_learning_rate_fraction": -1.0}, "final_learning_rate_fraction=-1.0: wanted a number from 0 to 1"),
        ({"warmup_fraction": 1.0}, "warmup_fraction=1.0: wanted a part of the steps, from 0 to below 1"),
        ({"beta": 0.0}, "beta=0.0: wanted a number above 0"),
        ({"label_smoothing": 0.5}, "label_smoothing=0.5: wanted a share of exchanged comparisons, from 0 to below 0.5"),
        ({"top_p": 0.0}, "top_p=0.0: wanted a number above 0 and at most 1"),
        ({"temperatures": (0.5, -1.0)}, "temperatures=(0.5, -1.0): wanted 0 or more"),
        ({"too_long": "cut"}, "too_long='cut': choose one of raise, drop, truncate_left, truncate_right, split"),
        ({"finetune": {"residual_dropout": 1.0}},
         "finetune.residual_dropout=1.0: wanted a part of what layers add, from 0 to below 1"),
        ({"decay": "steps"}, "decay='steps': choose one of cosine, linear"),
        ({"kept_epochs": (0, 3)}, "kept_epochs=(0, 3): wanted a whole number of at least 1"),
        ({"margin": "tiny"}, "margin='tiny': choose one of none, small, large"),
        ({"sources": {"mine": {"path": "x", "format": "text", "weight": NAN}}},
         "sources.mine: weight=nan: wanted a number, 0 or more"),
        ({"held_out": {"mine": {"function": "a.b", "format": "text", "limit": 0}}},
         "held_out.mine: limit=0: wanted a positive whole number, or None for all records"),
    ],
    ids=str,
)  # fmt: skip
def test_what_makes_no_sense_is_named(part, problem):
    assert value_problems(part) == [problem]


def test_all_that_is_wrong_is_named():
    assert len(value_problems({"steps": 0, "finetune": {"length": 0, "optimizer": {"clip": NAN}}})) == 3


def test_what_is_right_or_a_function_s_own_is_left_alone():
    assert value_problems({
        "run": "a.stage", "inputs": {"length": "a stage"}, "steps": 1, "evaluate_every": 0, "bag_size": 0,
        "learning_rate": 1e-5, "final_learning_rate_fraction": 1.0, "gamma": 1.0, "top_p": 1.0, "temperature": 0.0,
        "temperatures": (0.6, 0.8), "too_long": "drop", "length": 2, "scan": True, "limit": None,
        "reward": {"function": "a.b", "arguments": {"steps": 0, "ceiling": INF}},
        "sources": {"mine": {"path": "x", "format": "text", "where": {"length": 0}, "defaults": {"steps": 0}}},
    }) == []  # fmt: skip
