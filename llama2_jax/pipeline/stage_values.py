"""Checks of single values in a stage's part of the configuration, by the names of the fields, before anything runs.

A value that makes no sense would fail only when its stage starts, after others have trained for days, or not at all: a
fine-tuning of no epochs ends at once, and passes its start off as a tuned model. What values must be to each other is
checked by the stages' own `check`.
"""

import math
from collections.abc import Iterator, Mapping

from llama2_jax.data.dialogues import DIALOGUES_TOO_LONG
from llama2_jax.data.source import as_source
from llama2_jax.objectives.advantages import SCALES
from llama2_jax.objectives.ranking import MARGINS
from llama2_jax.training.schedules import DECAYS

# Whole numbers, and the least that each may be. A row of one token has nothing to predict.
_LEAST = {
    **dict.fromkeys(("batch_size", "minibatch_size", "pairs_per_batch", "prompts_per_batch", "accumulation"), 1),
    **dict.fromkeys(("judged_answers", "offset_demonstrations"), 1),
    "most_answers": 2,
    **dict.fromkeys(("steps", "iterations", "epochs", "kept_epochs", "patience"), 1),
    **dict.fromkeys(("samples_per_prompt", "sweep_samples_per_prompt", "sweep_prompts"), 1),
    **dict.fromkeys(("bag_answers_per_prompt", "max_new_tokens", "most_calls", "result_characters"), 1),
    **dict.fromkeys(("tasks", "tasks_shown", "tasks_per_call", "calls_per_round"), 1),
    **dict.fromkeys(("vocab_size", "max_characters", "instruction_turns", "fewest_prompts"), 1),
    **dict.fromkeys(("save_every", "log_every", "evaluate_every", "held_out_batches"), 0),
    **dict.fromkeys(("warmup_steps", "critic_warmup_iterations", "bag_size", "compared_prompts", "round"), 0),
    **dict.fromkeys(("documents_per_task", "shots", "prompts_per_group", "questions_per_task"), 0),
    "length": 2,
}
# Numbers, and where they must lie.
_RANGES = (
    (
        "a number above 0",
        lambda value: value > 0,
        ("learning_rate", "critic_learning_rate", "clip", "value_clip", "beta"),
    ),
    (
        "0 or more",
        lambda value: value >= 0,
        (
            "kl_coefficient",
            "coefficient",
            "missing_eos_penalty",
            "safety_auxiliary_weight",
            "temperature",
            "temperatures",
        ),
    ),
    (
        "a number from 0 to 1",
        lambda value: 0 <= value <= 1,
        (
            "final_learning_rate_fraction",
            "other_fraction",
            "terse_fraction",
            "safety_fraction",
            "safety_threshold",
            "most_alike",
            "gamma",
            "lambda_",
        ),
    ),
    ("a number above 0 and below 1", lambda value: 0 < value < 1, ("sweep_error_rate",)),
    ("a number from 0 to below 1", lambda value: 0 <= value < 1, ("ema_decay",)),
    ("a share of exchanged comparisons, from 0 to below 0.5", lambda value: 0 <= value < 0.5, ("label_smoothing",)),
    ("a part of the steps, from 0 to below 1", lambda value: 0 <= value < 1, ("warmup_fraction",)),
    ("a part of what layers add, from 0 to below 1", lambda value: 0 <= value < 1, ("residual_dropout",)),
    (
        "a number above 0 and at most 1",
        lambda value: 0 < value <= 1,
        ("top_p", "character_coverage", "unsafe_precision", "prompt_fraction"),
    ),
)
# What a round of rejection sampling fine-tunes on: its own best answers, or those of the rounds before too.
LAST_ROUND, ALL_ROUNDS = "last_round", "all_rounds"
_CHOICES = {
    "too_long": DIALOGUES_TOO_LONG,
    "margin": tuple(MARGINS),
    "bag": (LAST_ROUND, ALL_ROUNDS),
    "decay": tuple(DECAYS),
    # Of PPO's answers: a critic estimates their advantages, or a prompt's answers are compared with each other.
    "advantages": ("critic", "group"),
    "group_scale": SCALES,
}
# What a user's own function or file decides about.
_UNCHECKED = ("inputs", "arguments")


def value_problems(part: Mapping) -> list[str]:
    """Returns what is wrong with single values of a stage's part, each with its field and what was wanted.

    Every number must be finite, and every source must be one (data/source.py).

    Args:
      part: the stage's part of the configuration, with references resolved, as a plain mapping.
    """
    return list(_problems(part, ""))


def _problems(part: Mapping, place: str) -> Iterator[str]:
    for name, value in part.items():
        if name in _UNCHECKED:
            continue
        if isinstance(value, Mapping) and "format" in value and ("path" in value or "function" in value):
            yield from _source_problems(value, f"{place}{name}")
        elif isinstance(value, Mapping):
            yield from _problems(value, f"{place}{name}.")
        elif name in _CHOICES and value not in _CHOICES[name]:
            yield f"{place}{name}={value!r}: choose one of {', '.join(_CHOICES[name])}"
        else:
            numbers = [one for one in (value if isinstance(value, list | tuple) else [value]) if _is_number(one)]
            wanted = next((wanted for one in numbers if (wanted := _wanted(name, one))), "")
            if wanted:
                yield f"{place}{name}={value}: wanted {wanted}"


def _source_problems(source: Mapping, place: str) -> Iterator[str]:
    try:
        as_source(source)
    except ValueError as error:
        yield f"{place}: {error}"


def _wanted(name: str, value: float) -> str:
    """Returns what a number should have been; empty if it is right."""
    if not math.isfinite(value):
        return "a finite number"
    if name in _LEAST and (not isinstance(value, int) or value < _LEAST[name]):
        return f"a whole number of at least {_LEAST[name]}"
    return next((wanted for wanted, holds, names in _RANGES if name in names and not holds(value)), "")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
