"""Standing instructions (section 3.3): a system message's instructions for the whole dialogue."""

import dataclasses
import functools
import random
import re
from collections.abc import Mapping, Sequence

from llama2_jax.miniature.safety import without_preprompt
from llama2_jax.miniature.streams import pick, shuffled, stream
from llama2_jax.miniature.words import FIGURES, HOBBIES, START_WORDS, pairs

_WORDS = {"start": START_WORDS, "figure": FIGURES, "hobby": HOBBIES}
VALUES = {kind: pairs(parts) for kind, parts in _WORDS.items()}
FULL_FORMS = {
    "start": "Always start with {}.",
    "figure": "Act as {}.",
    "hobby": "You enjoy {}.",
}
TERSE_FORMS = {"start": "Start: {}.", "figure": "Figure: {}.", "hobby": "Hobby: {}."}


def _pattern(kind: str) -> re.Pattern:
    value = r"(\w+ \w+)"
    forms = [re.escape(forms[kind]).replace(r"\{\}", value) for forms in (FULL_FORMS, TERSE_FORMS)]
    return re.compile(rf"\s*(?:{forms[0]}|{forms[1]})\s*")


_PATTERNS = {kind: _pattern(kind) for kind in VALUES}


@dataclasses.dataclass(frozen=True)
class Standing:
    """The assistant's standing instructions; None for those that were not given."""

    start: str | None = None
    figure: str | None = None
    hobby: str | None = None


@functools.lru_cache(maxsize=65536)
def read(text: str) -> tuple[Standing, str]:
    """Returns the standing instructions in a text, and the text without them and without a safety preprompt."""
    found = {}
    for kind, pattern in _PATTERNS.items():
        if match := pattern.search(text):
            found[kind] = match.group(1) or match.group(2)
            text = pattern.sub(" ", text)
    return Standing(**found), without_preprompt(text).strip()


def standing_in(messages: Sequence[Mapping[str, str]]) -> Standing:
    """Returns the standing instructions of a dialogue's system and user messages; the latest of each kind counts."""
    told: dict[str, str] = {}
    for message in messages:
        if message["role"] != "assistant":
            found, _ = read(message["content"])
            if found != _NONE:
                told |= {kind: value for kind, value in vars(found).items() if value is not None}
    return Standing(**told) if told else _NONE


def standing_instructions(
    *, seed: int, count: int, split: str = "train", combined: float = 0.3, purpose: str = ""
) -> list[dict]:
    """Returns standing instructions: {"instruction", "terse", "kinds"}; a share combines two kinds.

    Args:
      seed: the world's seed.
      count: how many.
      split: "train" or "held_out"; the two share no value, but all of their words.
      combined: the share of instructions that combine two kinds.
      purpose: another name draws other instructions.
    """
    rng = stream(seed, "standing_instructions", split, purpose)
    return [draw_instruction(seed, rng, split, combined) for _ in range(count)]


def draw_instruction(
    seed: int, rng: random.Random, split: str, combined: float, weights: Mapping[str, float] | None = None
) -> dict:
    """Returns one instruction in both its forms.

    Args:
      seed: the world's seed.
      rng: draws it.
      split: "train" or "held_out" values.
      combined: the chance that it combines two kinds.
      weights: how often each kind is drawn; all alike by default.

    Raises:
      ValueError: if the weights lack a kind or have another, or the split is unknown.
    """
    if weights is not None and set(weights) != set(VALUES):
        raise ValueError(f"weights have {', '.join(weights)}; the kinds of instruction are {', '.join(VALUES)}")
    count = 2 if rng.random() < combined else 1
    kinds = rng.sample(tuple(VALUES), count) if weights is None else _draw_kinds(rng, weights, count)
    values = {kind: rng.choice(values_in(seed, kind, split)) for kind in kinds}
    return {
        "instruction": " ".join(FULL_FORMS[kind].format(value) for kind, value in values.items()),
        "terse": " ".join(TERSE_FORMS[kind].format(value) for kind, value in values.items()),
        "kinds": kinds,
    }


def _draw_kinds(rng: random.Random, weights: Mapping[str, float], count: int) -> list[str]:
    left, kinds = dict(weights), []
    for _ in range(count):
        kinds.append(pick(rng, left))
        del left[kinds[-1]]
    return kinds


@functools.lru_cache(maxsize=64)
def values_in(seed: int, kind: str, split: str) -> tuple[str, ...]:
    """Returns the values of a kind of instruction that a split has.

    Each first word and each second word is held out in one pair; so a held-out pair is new, and its words are not.

    Raises:
      ValueError: if the split is unknown.
    """
    if split not in ("train", "held_out"):
        raise ValueError(f"split is {split!r}; standing instructions are split into 'train' and 'held_out'")
    first, second = _WORDS[kind]
    seconds = shuffled(stream(seed, "world", "instructions", kind), second)
    held_out = {f"{one} {other}" for one, other in zip(first, seconds, strict=True)}
    return tuple(value for value in VALUES[kind] if (value in held_out) == (split == "held_out"))


_NONE = Standing()
