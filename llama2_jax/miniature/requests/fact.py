"""Questions about a land: one attribute, or several facts of the answerer's choice."""

import dataclasses
import random
import re
from collections.abc import Mapping

from llama2_jax.miniature.requests.answer_parts import WRONG_REASON, Draft, Grade
from llama2_jax.miniature.streams import shuffled
from llama2_jax.miniature.words import NUMBER_PATTERN, NUMBERS, REGIONS, capitalized, number_of
from llama2_jax.miniature.world import ATTRIBUTES, World

_ONE = re.compile(r"(?:What is|Name|Tell me) the (\w+) of (\w+)[?.]")
_SEVERAL = re.compile(rf"(?:Tell me|List) ({NUMBER_PATTERN}) facts about (\w+)\.")
_SENTENCE = re.compile(r"(?:The (\w+) of (\w+)|Its (\w+)) is (\w+)")
_REASON = re.compile(r"It is in the (\w+)")


@dataclasses.dataclass(frozen=True)
class FactRequest:
    """Which land, and one attribute or how many facts (attribute is None)."""

    land: str
    attribute: str | None
    count: int


def ask(world: World, rng: random.Random, level: int, demonstrated: bool) -> str:
    """Asks, at level 1, for one of ten words, at 2 for a name, at 3 to 5 for two to four facts."""
    land = rng.choice(world.demonstrated_lands if demonstrated else world.lands)
    if level >= 3:
        return f"{rng.choice(('Tell me', 'List'))} {NUMBERS[level - 1]} facts about {land}."
    attribute = rng.choice(ATTRIBUTES[:3] if level == 1 else ATTRIBUTES[3:])
    form = rng.choice(("What is the {} of {}?", "Name the {} of {}.", "Tell me the {} of {}."))
    return form.format(attribute, land)


def understand(world: World, text: str) -> FactRequest | None:
    """Parses a request; None if it is not about a land."""
    if match := _ONE.fullmatch(text):
        attribute, land = match.groups()
        return FactRequest(land, attribute, 1) if land in world.facts and attribute in ATTRIBUTES else None
    if match := _SEVERAL.fullmatch(text):
        count, land = match.groups()
        return FactRequest(land, None, number_of(count)) if land in world.facts else None
    return None


def place(world: World, request: FactRequest) -> int:
    """Returns the place of what is asked for, the land and the attribute or the number of facts (splits.py)."""
    asked = ATTRIBUTES.index(request.attribute) if request.attribute else len(ATTRIBUTES) + request.count
    return world.lands.index(request.land) + asked


def draft(world: World, request: FactRequest, rng: random.Random, right: bool, true_reason: bool) -> Draft:
    """Drafts an answer; in a wrong one, one of the values is another land's.

    A careful one of several facts has them in the order in which the world names them.
    """
    facts = world.facts[request.land]
    attributes = [request.attribute] if request.attribute else shuffled(rng, ATTRIBUTES)[: request.count]
    values = {attribute: facts[attribute] for attribute in attributes}
    if not right:
        spoiled = rng.choice(attributes)
        values[spoiled] = _other_value(world, rng, spoiled, facts[spoiled])
    bare, careful = capitalized(values.get(request.attribute, "")), ""
    if not request.attribute:
        bare = ". ".join(f"{capitalized(attribute)} {value}" for attribute, value in values.items())
        careful = _sentences(request.land, {attribute: facts[attribute] for attribute in ATTRIBUTES[: request.count]})
    region = facts["region"] if true_reason else rng.choice([r for r in REGIONS if r != facts["region"]])
    return Draft(_sentences(request.land, values), f"{bare}.", f"It is in the {region}.", careful)


def _sentences(land: str, values: Mapping[str, str]) -> str:
    (attribute, value), *others = values.items()
    return " ".join([f"The {attribute} of {land} is {value}.", *(f"Its {name} is {its}." for name, its in others)])


def grade(world: World, request: FactRequest, sentences: list[str]) -> Grade:
    """Grades content by the share of the facts asked for that are present and true; extra or repeated ones cost."""
    facts = world.facts[request.land]
    right, given, full, reason, stray = set(), 0, 0, 0.0, 0
    for sentence in sentences:
        if match := _SENTENCE.fullmatch(sentence):
            attribute, land, short_attribute, value = match.groups()
            attribute, land = attribute or short_attribute, land or request.land
            full += 1
        elif match := _REASON.fullmatch(sentence):
            reason = max(reason, 1.0 if match.group(1) == facts["region"] else WRONG_REASON)
            continue
        else:
            land, (attribute, value) = request.land, _bare_fact(request, sentence)
        if attribute is None:
            stray += 1
            continue
        given += 1
        wanted = request.attribute is None or attribute == request.attribute
        if wanted and land == request.land and attribute in ATTRIBUTES and facts[attribute] == value:
            right.add(attribute)
    content = len(right) / max(request.count, given)
    return Grade(content, full / given if given else 0.0, reason, stray, given > 0)


def _bare_fact(request: FactRequest, sentence: str) -> tuple[str | None, str]:
    first, _, rest = sentence.partition(" ")
    if request.attribute and not rest:
        return request.attribute, first.lower() if request.attribute in ATTRIBUTES[:3] else first
    if rest and " " not in rest and first.lower() in ATTRIBUTES:
        return first.lower(), rest
    return None, ""


def _other_value(world: World, rng: random.Random, attribute: str, value: str) -> str:
    return rng.choice(sorted({facts[attribute] for facts in world.facts.values()} - {value}))
