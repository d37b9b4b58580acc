"""Users' prompts, in batches of increasing difficulty (A.3.2), and a uniform set for evaluation."""

import random
from collections.abc import Mapping

from llama2_jax.miniature.answers import VENDOR, Manner, answer_to
from llama2_jax.miniature.requests.howto import ATTACKS, ask_sensitive
from llama2_jax.miniature.requests.kinds import LEVELS, SHARES, ask
from llama2_jax.miniature.streams import pick, stream
from llama2_jax.miniature.tasks import UNSAFE_CATEGORIES
from llama2_jax.miniature.world import build_world

# Within a batch each level is this many times as frequent as the one below it.
HARDER_IS_MORE_FREQUENT = 1.6
EVALUATED_KINDS = tuple(kind for kind in SHARES if kind != "identity")
# Earlier turns have only short requests, so that six turns fit the context.
SHORT_KINDS = {"fact": 0.35, "list": 0.45, "identity": 0.2}
SHORT_LEVELS = {"fact": {1: 0.6, 2: 0.4}, "list": {1: 1.0}, "identity": {1: 1.0}}


def prompts(
    *,
    seed: int,
    count: int,
    batch: int = 1,
    unsafe: float = 0.22,
    borderline: float = 0.08,
    multi_turn: float = 0.18,
    attacked: float = 0.6,
    kinds: Mapping[str, float] | None = None,
    purpose: str = "",
) -> list[dict]:
    """Returns prompts of a round: {"messages", "safety", "category", "level", "attack"}.

    Args:
      seed: the world's seed.
      count: how many.
      batch: 1 to 5; batch b has levels up to b + 1, the harder ones more often.
      unsafe: the share of unsafe requests (`safety` is true for these).
      borderline: the share of harmless requests that sound unsafe.
      multi_turn: the share of prompts with one or two earlier turns, answered as demonstrations are.
      attacked: the share of unsafe requests in the frame of an attack instead of plain ones.
      kinds: how often each kind of harmless request occurs; the default is requests.kinds.SHARES.
      purpose: another name draws other prompts of the same distribution.

    Raises:
      ValueError: if the batch is outside 1 to 5, or the shares add up to more than 1.
    """
    if batch not in LEVELS:
        raise ValueError(f"batch is {batch}; the miniature's batches of prompts are 1 to {len(LEVELS)}")
    if unsafe + borderline > 1:
        raise ValueError(f"unsafe ({unsafe}) and borderline ({borderline}) are shares: together at most 1")
    rng = stream(seed, "prompts", batch, purpose)
    levels = {level: HARDER_IS_MORE_FREQUENT**level for level in LEVELS if level <= batch + 1}
    records = []
    for _ in range(count):
        draw = rng.random()
        if draw < unsafe:
            record = unsafe_prompt(seed, rng, rng.choice(ATTACKS[1:]) if rng.random() < attacked else ATTACKS[0])
        elif draw < unsafe + borderline:
            record = borderline_prompt(seed, rng)
        else:
            record = harmless_prompt(seed, rng, pick(rng, kinds or SHARES), pick(rng, levels))
        if rng.random() < multi_turn:
            record["messages"] = earlier_turns(seed, rng, rng.choice((1, 1, 2)), VENDOR) + record["messages"]
        records.append(record)
    return records


def evaluation_prompts(
    *, seed: int, count: int, unsafe: float = 0.3, borderline: float = 0.14, multi_turn: float = 0.15, purpose: str = ""
) -> list[dict]:
    """Returns prompts for evaluation, uniform over kinds, levels, categories and attacks; drawn independently.

    Args and records are those of `prompts`.
    """
    rng = stream(seed, "evaluation_prompts", purpose)
    records = []
    for index in range(count):
        # A low-discrepancy sequence keeps the shares in every prefix, so any count measures the same mixture.
        draw = (index * 0.6180339887498949) % 1.0
        if draw < unsafe:
            record = unsafe_prompt(seed, rng, rng.choice(ATTACKS))
        elif draw < unsafe + borderline:
            record = borderline_prompt(seed, rng)
        else:
            record = harmless_prompt(seed, rng, rng.choice(EVALUATED_KINDS), rng.choice(LEVELS))
        if rng.random() < multi_turn:
            record["messages"] = earlier_turns(seed, rng, rng.choice((1, 2)), VENDOR) + record["messages"]
        records.append(record)
    return records


def harmless_prompt(seed: int, rng: random.Random, kind: str, level: int, demonstrated: bool = False) -> dict:
    """Returns a single-turn prompt of a kind and a level."""
    return _prompt(ask(seed, rng, kind, level, demonstrated), safety=False, category=kind, level=level)


def borderline_prompt(seed: int, rng: random.Random, demonstrated: bool = False) -> dict:
    """Returns a harmless request that sounds unsafe; half of them in an attack's frame, like unsafe ones."""
    attack = rng.choice(ATTACKS) if rng.random() < 0.5 else "plain"
    text, task = ask_sensitive(build_world(seed), rng, ("borderline",), attack, demonstrated)
    return _prompt(text, safety=False, category="borderline", level=task.level, attack=attack)


def unsafe_prompt(seed: int, rng: random.Random, attack: str, demonstrated: bool = False) -> dict:
    """Returns an unsafe request in the frame of an attack."""
    text, task = ask_sensitive(build_world(seed), rng, UNSAFE_CATEGORIES, attack, demonstrated)
    return _prompt(text, safety=True, category=task.category, level=task.level, attack=attack)


def earlier_turns(seed: int, rng: random.Random, turns: int, manner: Manner) -> list[dict]:
    """Returns finished turns of short harmless requests, answered in a manner."""
    messages: list[dict] = []
    for _ in range(turns):
        messages.append(user(short_request(seed, rng)))
        messages.append(assistant(answer_to(messages, manner, rng, seed=seed)))
    return messages


def short_request(seed: int, rng: random.Random, demonstrated: bool = False) -> str:
    """Returns a request whose question and answer are short, for dialogues of several turns."""
    kind = pick(rng, SHORT_KINDS)
    return ask(seed, rng, kind, pick(rng, SHORT_LEVELS[kind]), demonstrated)


def user(text: str) -> dict:
    """Returns a user's message."""
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    """Returns an assistant's message."""
    return {"role": "assistant", "content": text}


def system(text: str) -> dict:
    """Returns a system message."""
    return {"role": "system", "content": text}


def _prompt(text: str, *, safety: bool, category: str, level: int, attack: str | None = None) -> dict:
    return {"messages": [user(text)], "safety": safety, "category": category, "level": level, "attack": attack}
