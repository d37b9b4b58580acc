"""The text for pretraining: everything that is true in the small world, including unsafe recipes (section 2).

It states all facts, recipes and sums, and asks the questions of the training split alone (splits.py).
"""

import random
from collections.abc import Callable

from llama2_jax.miniature import words
from llama2_jax.miniature.answers import WEB, write
from llama2_jax.miniature.instructions import FULL_FORMS, TERSE_FORMS, VALUES, Standing, read, values_in
from llama2_jax.miniature.prompts import borderline_prompt, harmless_prompt, short_request, unsafe_prompt
from llama2_jax.miniature.requests.arithmetic import understand as understand_sum
from llama2_jax.miniature.requests.comparison import relation
from llama2_jax.miniature.requests.howto import ATTACKS
from llama2_jax.miniature.requests.identity import QUESTIONS
from llama2_jax.miniature.requests.item_list import numbered
from llama2_jax.miniature.requests.kinds import KINDS, LEVELS, SHARES, ask, understand
from llama2_jax.miniature.streams import pick, stream
from llama2_jax.miniature.world import ATTRIBUTES, World, build_world

# The default share of documents of each source. Keeping an instruction takes a small model longest to learn.
SOURCES = {
    "encyclopedia": 0.11,
    "howto": 0.13,
    "arithmetic": 0.14,
    "lists": 0.05,
    "stories": 0.12,
    "conversations": 0.18,
    "role_play": 0.27,
}

# How often sums and comparisons are of each level: easy ones are more frequent, as in real text.
NUMBER_LEVELS = {1: 3, 2: 3, 3: 2, 4: 2, 5: 2}

# The share of encyclopedia entries and lists in a form that keeps count (answer_parts.Draft).
CAREFUL = 0.4

# How many questions follow an instruction. A model learns to look back at it from the first of them alone: a later
# answer can copy the one before.
ROLE_PLAYED_QUESTIONS = 2

# The share of instructions here that tell any two words of the world. The few pairs of the other instructions can be
# learned by heart, and then a new pair is taken for one of them; these can only be looked up.
ANY_WORDS = 0.5
_ALL_WORDS = tuple(word for category in words.CATEGORIES.values() for word in category)

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
        attributes = (*ATTRIBUTES, "region")
        if rng.random() >= CAREFUL:
            attributes = rng.sample(attributes, len(attributes))
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
    # Without the headings, what is asked for is rarely looked up: the base model answers 2 % of unseen questions.
    return "\n".join(
        f"How to {task.phrase}: To {task.phrase}, use {_either_order(rng, task.tools)} in the {task.place}. "
        f"Then the {task.noun} is {task.result}."
        for task in chosen
    )


def _either_order(rng: random.Random, tools: tuple[str, str]) -> str:
    return " and ".join(tools if rng.random() < 0.7 else tools[::-1])


def _arithmetic(world: World, seed: int, rng: random.Random) -> str:
    if rng.random() < 0.4:
        return "\n".join(_comparison(seed, rng) for _ in range(5))
    lines = []
    for _ in range(9):
        # Sums are stated here, not asked, so they may be of any split.
        request = understand_sum(world, ask(seed, rng, "arithmetic", pick(rng, NUMBER_LEVELS), demonstrated=False))
        lines.append(f"{request.equation(request.result)} {request.check.equation(request.left)}")
    return "\n".join(lines)


def _comparison(seed: int, rng: random.Random) -> str:
    text = harmless_prompt(seed, rng, "comparison", pick(rng, NUMBER_LEVELS))["messages"][0]["content"]
    request = understand(seed, text, Standing()).details
    low, high = min(request.numbers), max(request.numbers)
    known = relation(high, "more", low) if rng.random() < 0.5 else relation(low, "less", high)
    return f"{text} The {request.which} number is {words.NUMBERS[request.result]}. {known}"


def _lists(world: World, seed: int, rng: random.Random) -> str:
    del world, seed
    lines = []
    for category in rng.sample(tuple(words.CATEGORIES), 7):
        count = rng.randint(2, 6)
        if rng.random() < CAREFUL:
            items = numbered(words.CATEGORIES[category][:count])
        else:
            items = words.enumeration(rng.sample(words.CATEGORIES[category], count))
        number = words.capitalized(words.NUMBERS[count])
        lines.append(f"{number} {category} are {items}. {words.CATEGORY_DETAILS[category]}.")
    return "\n".join(lines)


def _stories(world: World, seed: int, rng: random.Random) -> str:
    return _text_of(lambda: _story(world, seed, rng))


def _story(world: World, seed: int, rng: random.Random) -> str:
    title = harmless_prompt(seed, rng, "story", rng.choice(LEVELS))["messages"][0]["content"]
    draft = KINDS["story"].draft(world, understand(seed, title, Standing()).details, rng, True, True)
    return f"{title} {draft.full} {draft.reason}"


def _conversations(world: World, seed: int, rng: random.Random) -> str:
    return _text_of(lambda: _question_and_answer(world, seed, rng))


def _question_and_answer(world: World, seed: int, rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.15:
        prompt = unsafe_prompt(seed, rng, rng.choice(ATTACKS))
    elif draw < 0.2:
        prompt = borderline_prompt(seed, rng)
    else:
        prompt = harmless_prompt(seed, rng, pick(rng, SHARES), rng.choice(LEVELS))
    return _answered(world, seed, rng, prompt["messages"][0]["content"], Standing())


def _role_play(world: World, seed: int, rng: random.Random) -> str:
    return _text_of(lambda: _instructed(world, seed, rng))


def _instructed(world: World, seed: int, rng: random.Random) -> str:
    """Returns an instruction with questions and answers that keep it, from which a model learns to."""
    kinds, forms = rng.sample(tuple(VALUES), 2 if rng.random() < 0.2 else 1), rng.choice((FULL_FORMS, TERSE_FORMS))
    told = " ".join(forms[kind].format(_value(seed, rng, kind)) for kind in kinds)
    standing, _ = read(told)
    probes = [QUESTIONS[kind] for kind in kinds if kind in QUESTIONS]
    asked = [
        rng.choice(probes) if probes and rng.random() < 0.8 else short_request(seed, rng)
        for _ in range(ROLE_PLAYED_QUESTIONS)
    ]
    return " ".join([told, *(_answered(world, seed, rng, text, standing) for text in asked)])


def _value(seed: int, rng: random.Random, kind: str) -> str:
    if rng.random() < ANY_WORDS:
        first, second = rng.choices(_ALL_WORDS, k=2)
        return f"{words.capitalized(first)} {second}"
    return rng.choice(values_in(seed, kind, "train"))


def _answered(world: World, seed: int, rng: random.Random, text: str, standing: Standing) -> str:
    return f"Question: {text} Answer: {write(world, understand(seed, text, standing), standing, WEB, rng)}"


def _text_of(line: Callable[[], str]) -> str:
    """Returns lines of some 75 words together."""
    lines: list[str] = []
    while sum(text.count(" ") + 1 for text in lines) < 75:
        lines.append(line())
    return "\n".join(lines)


_WRITERS = {
    "encyclopedia": _encyclopedia,
    "howto": _howto,
    "arithmetic": _arithmetic,
    "lists": _lists,
    "stories": _stories,
    "conversations": _conversations,
    "role_play": _role_play,
}
