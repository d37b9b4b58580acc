"""Questions about the assistant itself: its name and what it enjoys, which a standing instruction may have set."""

import dataclasses
import random
import re

from llama2_jax.miniature.requests.answer_parts import WRONG_REASON, Draft, Grade
from llama2_jax.miniature.words import FIGURES, HOBBIES, capitalized, pairs
from llama2_jax.miniature.world import World

QUESTIONS = {"figure": "What is your name?", "hobby": "What do you enjoy?"}
_LEADS = {"figure": "My name is", "hobby": "I enjoy"}
_REASONS = {"figure": "Nice to meet you", "hobby": "It is fun"}
_DEFAULTS = {"figure": "Llama", "hobby": "helping"}
_SENTENCES = {kind: re.compile(rf"{lead} (.+)") for kind, lead in _LEADS.items()}


@dataclasses.dataclass(frozen=True)
class IdentityRequest:
    """What is asked for ("figure" or "hobby"), and the right answer."""

    asked: str
    value: str


def ask(world: World, rng: random.Random, level: int, demonstrated: bool) -> str:
    """Asks one of the two questions; all levels are equally hard."""
    del world, level, demonstrated
    return rng.choice(tuple(QUESTIONS.values()))


def understand(text: str, figure: str | None, hobby: str | None) -> IdentityRequest | None:
    """Parses a request, given the assistant's standing instructions; None if it asks for neither."""
    told = {"figure": figure, "hobby": hobby}
    for asked, question in QUESTIONS.items():
        if text == question:
            return IdentityRequest(asked, told[asked] or _DEFAULTS[asked])
    return None


def draft(world: World, request: IdentityRequest, rng: random.Random, right: bool, true_reason: bool) -> Draft:
    """Drafts an answer; a wrong one has another name or hobby."""
    del world
    others = [value for value in pairs(FIGURES if request.asked == "figure" else HOBBIES) if value != request.value]
    value = request.value if right else rng.choice(others)
    reason = _REASONS[request.asked if true_reason else ("hobby" if request.asked == "figure" else "figure")]
    return Draft(f"{_LEADS[request.asked]} {value}.", f"{capitalized(value)}.", f"{reason}.")


def grade(world: World, request: IdentityRequest, sentences: list[str]) -> Grade:
    """Grades content 1 or 0."""
    del world
    contents, full, reason, stray = [], 0, 0.0, 0
    for sentence in sentences:
        if match := _SENTENCES[request.asked].fullmatch(sentence):
            contents.append(match.group(1) == request.value)
            full += 1
        elif sentence in _REASONS.values():
            reason = max(reason, 1.0 if sentence == _REASONS[request.asked] else WRONG_REASON)
        elif sentence == capitalized(request.value):
            contents.append(True)
        else:
            stray += 1
    if not contents:
        return Grade(0.0, 0.0, reason, stray, attempted=False)
    return Grade(sum(contents) / len(contents), full / len(contents), reason, stray, attempted=True)
