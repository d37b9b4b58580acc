"""Stories in which given things must occur, each in a separate sentence."""

import dataclasses
import random
import re

from llama2_jax.miniature.requests.answer_parts import Draft, Grade
from llama2_jax.miniature.words import CATEGORIES, STORY_NOUNS, enumeration, with_article
from llama2_jax.miniature.world import World

_QUESTION = re.compile(r"(?:Write|Tell) a story with (an? [a-z, ]+)\.")
_NOUN = re.compile(r"\ban? ([a-z]+)")
BEGINNINGS = ("One day {} was lost", "One day {} was found", "One day there was {}")
BARE_BEGINNINGS = ("{} was lost", "{} was found", "There was {}")
MIDDLES = (
    "Then came {}",
    "It had {}",
    "It saw {}",
    "They found {}",
    "Near it was {}",
    "Under it was {}",
)
ENDINGS = ("In the end all were happy", "In the end they went home")
_COLOURS = frozenset(CATEGORIES["colours"])
_NOUNS = frozenset(STORY_NOUNS)
_LEXICON = (
    frozenset(" ".join((*BEGINNINGS, *BARE_BEGINNINGS, *MIDDLES, *ENDINGS)).replace("{}", "a an the").lower().split())
    | _NOUNS
    | _COLOURS
)
_LONGEST_SENTENCE = 9
_SHORTEST_SENTENCE = 4


@dataclasses.dataclass(frozen=True)
class StoryRequest:
    """The things that must occur."""

    nouns: tuple[str, ...]


def ask(world: World, rng: random.Random, level: int, demonstrated: bool) -> str:
    """Asks for a story with as many things as the level."""
    del world, demonstrated
    nouns = enumeration([with_article(noun) for noun in rng.sample(STORY_NOUNS, level)])
    return f"{rng.choice(('Write', 'Tell'))} a story with {nouns}."


def understand(world: World, text: str) -> StoryRequest | None:
    """Parses a request; None if it does not ask for a story."""
    del world
    match = _QUESTION.fullmatch(text)
    nouns = tuple(_NOUN.findall(match.group(1))) if match else ()
    return StoryRequest(nouns) if nouns and _NOUNS.issuperset(nouns) else None


def place(world: World, request: StoryRequest) -> int:
    """Returns the place of what is asked for, the things in any order (splits.py)."""
    del world
    return sum(STORY_NOUNS.index(noun) for noun in request.nouns)


def draft(world: World, request: StoryRequest, rng: random.Random, right: bool, true_reason: bool) -> Draft:
    """Drafts a story; in a wrong one a thing is missing. The supporting detail is the story's end."""
    del world, true_reason
    nouns = list(request.nouns)
    if not right:
        nouns[rng.randrange(len(nouns))] = rng.choice([noun for noun in STORY_NOUNS if noun not in request.nouns])
    things = [with_article(noun) for noun in nouns]
    start = rng.randrange(len(BEGINNINGS))
    middles = [form.format(thing) for form, thing in zip(rng.sample(MIDDLES, len(MIDDLES)), things[1:], strict=False)]
    bare = BARE_BEGINNINGS[start].format(things[0])
    return Draft(
        f"{'. '.join([BEGINNINGS[start].format(things[0]), *middles])}.",
        f"{'. '.join([bare[0].upper() + bare[1:], *middles])}.",
        f"{rng.choice(ENDINGS)}.",
    )


def grade(world: World, request: StoryRequest, sentences: list[str]) -> Grade:
    """Grades content by the share of the things that occur, one credited per sentence; idle sentences cost."""
    del world
    missing, told, reason, stray, opened = set(request.nouns), set(), 0.0, 0, False
    for sentence in sentences:
        if sentence in ENDINGS:
            reason = 1.0
            continue
        words = sentence.lower().split()
        readable = _SHORTEST_SENTENCE <= len(words) <= _LONGEST_SENTENCE and _LEXICON.issuperset(words)
        if sentence in told or not readable:
            stray += 1
            continue
        opened = opened or (not told and sentence.startswith("One day"))
        told.add(sentence)
        if found := missing.intersection(words):
            missing.remove(min(found, key=words.index))
    credited = len(request.nouns) - len(missing)
    content = credited / max(len(request.nouns), len(told))
    return Grade(content, float(opened), reason, stray, attempted=bool(told))
