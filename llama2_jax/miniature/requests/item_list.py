"""Lists of things of a category."""

import dataclasses
import random
import re
from collections.abc import Sequence

from llama2_jax.miniature.requests.answer_parts import WRONG_REASON, Draft, Grade
from llama2_jax.miniature.words import (
    CATEGORIES,
    CATEGORY_DETAILS,
    NUMBER_PATTERN,
    NUMBERS,
    capitalized,
    enumeration,
    number_of,
)
from llama2_jax.miniature.world import World

_QUESTION = re.compile(rf"(?:List|Name|Give me) ({NUMBER_PATTERN}) (\w+)\.")
_LEAD = re.compile(r"(\w+) (\w+) are (.+)")
_BETWEEN = re.compile(r", | and ")
_ITS_NUMBER = re.compile(r"\d ")
_MEMBERS = {name: frozenset(members) for name, members in CATEGORIES.items()}
_ANY_MEMBER = frozenset().union(*_MEMBERS.values())
_DETAILS = {detail: name for name, detail in CATEGORY_DETAILS.items()}


@dataclasses.dataclass(frozen=True)
class ListRequest:
    """The number of distinct items, and their category."""

    count: int
    category: str


def ask(world: World, rng: random.Random, level: int, demonstrated: bool) -> str:
    """Asks for one item more than the level."""
    del world, demonstrated
    return f"{rng.choice(('List', 'Name', 'Give me'))} {NUMBERS[level + 1]} {rng.choice(tuple(CATEGORIES))}."


def understand(world: World, text: str) -> ListRequest | None:
    """Parses a request; None if it does not ask for a list."""
    del world
    match = _QUESTION.fullmatch(text)
    return ListRequest(number_of(match.group(1)), match.group(2)) if match and match.group(2) in CATEGORIES else None


def place(world: World, request: ListRequest) -> int:
    """Returns the place of what is asked for, the category and the number of items (splits.py)."""
    del world
    return tuple(CATEGORIES).index(request.category) + request.count


def draft(world: World, request: ListRequest, rng: random.Random, right: bool, true_reason: bool) -> Draft:
    """Drafts an answer; in a wrong one an item is missing, repeated, or of another category.

    A careful one numbers the first items that the world names.
    """
    del world
    items = rng.sample(CATEGORIES[request.category], request.count)
    others = [name for name in CATEGORIES if name != request.category]
    if not right:
        fault = rng.choice(("short", "twice", "other"))
        if fault == "short":
            items = items[:-1]
        else:
            items[-1] = items[0] if fault == "twice" else rng.choice(CATEGORIES[rng.choice(others)])
    words = enumeration(items)
    detail = CATEGORY_DETAILS[request.category if true_reason else rng.choice(others)]
    lead = f"{capitalized(NUMBERS[request.count])} {request.category} are"
    return Draft(
        f"{lead} {words}.",
        f"{capitalized(words)}.",
        f"{detail}.",
        f"{lead} {numbered(CATEGORIES[request.category][: request.count])}.",
    )


def numbered(items: Sequence[str]) -> str:
    """Returns items that are counted as they are named: "1 fox, 2 dog and 3 cat"."""
    return enumeration([f"{number} {item}" for number, item in enumerate(items, start=1)])


def grade(world: World, request: ListRequest, sentences: list[str]) -> Grade:
    """Grades content by the number of distinct right items over those wanted or given, whichever are more."""
    del world
    members = _MEMBERS[request.category]
    right, given, lists, full, reason, stray = set(), 0, 0, 0, 0.0, 0
    for sentence in sentences:
        if sentence in _DETAILS:
            reason = max(reason, 1.0 if _DETAILS[sentence] == request.category else WRONG_REASON)
            continue
        lead = _LEAD.fullmatch(sentence)
        items = [_ITS_NUMBER.sub("", item) for item in _BETWEEN.split(lead.group(3) if lead else sentence)]
        if not lead:
            items[0] = items[0].lower()
            if not _ANY_MEMBER.intersection(items):
                stray += 1
                continue
        lists += 1
        full += bool(lead) and lead.group(1).lower() == NUMBERS[request.count] and lead.group(2) == request.category
        given += len(items)
        right.update(members.intersection(items))
    if not lists:
        return Grade(0.0, 0.0, reason, stray, attempted=False)
    return Grade(len(right) / max(request.count, given), full / lists, reason, stray, attempted=True)
