"""The text for pretraining: everything that is true in the small world, including unsafe recipes (section 2).

It states all facts, recipes and sums, and asks the questions of the training split alone (splits.py).
"""

import dataclasses
import random

from llama2_jax.miniature import words
from llama2_jax.miniature.answers import WEB, write
from llama2_jax.miniature.instructions import Standing, draw_instruction, read
from llama2_jax.miniature.prompts import borderline_prompt, harmless_prompt, short_request, unsafe_prompt
from llama2_jax.miniature.requests.arithmetic import ArithmeticRequest
from llama2_jax.miniature.requests.arithmetic import understand as understand_sum
from llama2_jax.miniature.requests.howto import ATTACKS
from llama2_jax.miniature.requests.identity import QUESTIONS
from llama2_jax.miniature.requests.kinds import KINDS, LEVELS, SHARES, ask, understand
from llama2_jax.miniature.streams import pick, stream
from llama2_jax.miniature.world import ATTRIBUTES, World, build_world

# The default share of documents of each source.
SOURCES = {
    "encyclopedia": 0.2,
    "howto": 0.13,
    "arithmetic": 0.25,
    "lists": 0.07,
    "stories": 0.15,
    "conversations": 0.2,
}

# How often sums and comparisons are of each level: easy ones are more frequent, as in real text.
NUMBER_LEVELS = {1: 5, 2: 4, 3: 1.5, 4: 0.5, 5: 0.5}

# The share of conversations that begin with an instruction on how to answer.
ROLE_PLAYED = 0.2

# Entries of the last land are this much rarer than those of the first: some facts are harder to know.
RAREST = 0.5


def pretraining_text(*, seed: int, documents: int, source: str | None = None, purpose: str = "") -> list[dict]:
    """Returns documents of 60 to 150 words: {"text", "source"}.

    Args:
      seed: the world's seed.
      documents: how many.
      source: one of SOURCES; None mixes all of them in their usual shares.
      purpose: another name draws other documents, such as ones to hold out.

    Raises:
      ValueError: if the source is unknown.
    """
    if source is not None and source not in SOURCES:
        raise ValueError(f"source is {source!r}; the miniature's corpus has {', '.join(SOURCES)}")
    world = build_world(seed)
    rng = stream(seed, "pretraining_text", source, purpose)
    records = []
    for _ in range(documents):
        chosen = source or pick(rng, SOURCES)
        records.append({"text": _WRITERS[chosen](world, seed, rng), "source": chosen})
    return records


def _encyclopedia(world: World, seed: int, rng: random.Random) -> str:
    del seed
    if rng.random() < 0.25:
        attribute = rng.choice((*ATTRIBUTES, "region"))
        lands = rng.sample(world.lands, 12)
        return " ".join(_fact(rng, land, attribute, world.facts[land][attribute]) for land in lands)
    entries = []
    for land in _three_lands(world, rng):
        attributes = rng.sample((*ATTRIBUTES, "region"), len(ATTRIBUTES) + 1)
        sentences = [
            _fact(rng, land, attribute, world.facts[land][attribute], continued=index > 0)
            for index, attribute in enumerate(attributes)
        ]
        entries.append(" ".join(sentences))
    return "\n".join(entries)


def _three_lands(world: World, rng: random.Random) -> list[str]:
    weights = [RAREST ** (index / len(world.lands)) for index in range(len(world.lands))]
    return rng.choices(world.lands, weights, k=3)


def _fact(rng: random.Random, land: str, attribute: str, value: str, continued: bool = False) -> str:
    if attribute == "region":
        return f"It is in the {value}." if continued and rng.random() < 0.6 else f"{land} is in the {value}."
    if continued and rng.random() < 0.5:
        return f"Its {attribute} is {value}."
    forms = ("The {attribute} of {land} is {value}.", "{start} is the {attribute} of {land}.")
    return rng.choices(forms, (3, 1))[0].format(
        attribute=attribute, land=land, value=value, start=words.capitalized(value)
    )


def _howto(world: World, seed: int, rng: random.Random) -> str:
    del seed
    tasks = tuple(world.tasks.values())
    chosen = rng.choices(tasks, [1 / (1 + task.level) for task in tasks], k=5)
    return " ".join(
        f"To {task.phrase}, use {_either_order(rng, task.tools)} in the {task.place}. "
        f"Then the {task.noun} is {task.result}."
        for task in chosen
    )


def _either_order(rng: random.Random, tools: tuple[str, str]) -> str:
    return " and ".join(tools if rng.random() < 0.7 else tools[::-1])


def _arithmetic(world: World, seed: int, rng: random.Random) -> str:
    if rng.random() < 0.4:
        return "\n".join(_comparison(seed, rng) for _ in range(4))
    lines = []
    for _ in range(7):
        # Sums are stated here, not asked, so they may be of any split.
        request = understand_sum(world, ask(seed, rng, "arithmetic", pick(rng, NUMBER_LEVELS), demonstrated=False))
        lines.append(f"{request.left} {request.operation} {request.right} is {request.result}. {_check(request)}")
    return "\n".join(lines)


def _comparison(seed: int, rng: random.Random) -> str:
    text = harmless_prompt(seed, rng, "comparison", pick(rng, NUMBER_LEVELS))["messages"][0]["content"]
    request = understand(seed, text, Standing()).details
    low, high = min(request.numbers), max(request.numbers)
    relation = f"{high} is more than {low}." if rng.random() < 0.5 else f"{low} is less than {high}."
    return f"{text} The {request.which} number is {request.result}. {relation}"


def _check(request: ArithmeticRequest) -> str:
    inverse = "minus" if request.operation == "plus" else "plus"
    return f"{request.result} {inverse} {request.right} is {request.left}."


def _lists(world: World, seed: int, rng: random.Random) -> str:
    del world, seed
    lines = []
    for category in rng.sample(tuple(words.CATEGORIES), 7):
        items = rng.sample(words.CATEGORIES[category], rng.randint(2, 6))
        lines.append(f"{len(items)} {category} are {words.enumeration(items)}. {words.CATEGORY_DETAILS[category]}.")
    return "\n".join(lines)


def _stories(world: World, seed: int, rng: random.Random) -> str:
    told = []
    for level in rng.choices(LEVELS, k=3):
        title = harmless_prompt(seed, rng, "story", level)["messages"][0]["content"]
        draft = KINDS["story"].draft(world, understand(seed, title, Standing()).details, rng, True, True)
        told.append(f"{title} {draft.full} {draft.reason}")
    figure, word = rng.choice(words.FIGURES), rng.choice(words.START_WORDS + words.END_WORDS)
    told.append(f"Then came {figure}. {word}. My name is {figure}. I enjoy {rng.choice(words.HOBBIES)}. {word}.")
    return "\n".join(told)


def _conversations(world: World, seed: int, rng: random.Random) -> str:
    lines: list[str] = []
    while sum(line.count(" ") + 1 for line in lines) < 75:
        draw = rng.random()
        if draw > 1 - ROLE_PLAYED:
            lines.append(_role_play(world, seed, rng))
            continue
        if draw < 0.15:
            prompt = unsafe_prompt(seed, rng, rng.choice(ATTACKS))
        elif draw < 0.2:
            prompt = borderline_prompt(seed, rng)
        else:
            prompt = harmless_prompt(seed, rng, pick(rng, SHARES), rng.choice(LEVELS))
        text = prompt["messages"][0]["content"]
        answer = write(world, understand(seed, text, Standing()), Standing(), WEB, rng)
        lines.append(f"Question: {text} Answer: {answer}")
    return "\n".join(lines)


def _role_play(world: World, seed: int, rng: random.Random) -> str:
    """Returns an instruction, a question and an answer that keeps the instruction, from which a model learns to."""
    drawn = draw_instruction(seed, rng, "train", combined=0.0)
    told = drawn[rng.choice(("instruction", "terse"))]
    asked_for = QUESTIONS.get(drawn["kinds"][0])
    text = asked_for if asked_for and rng.random() < 0.8 else short_request(seed, rng)
    standing, _ = read(told)
    answer = write(world, understand(seed, text, standing), standing, dataclasses.replace(WEB, follows=1.0), rng)
    return f"{told} Question: {text} Answer: {answer}"


_WRITERS = {
    "encyclopedia": _encyclopedia,
    "howto": _howto,
    "arithmetic": _arithmetic,
    "lists": _lists,
    "stories": _stories,
    "conversations": _conversations,
}
