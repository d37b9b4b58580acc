"""Users' prompts, in batches of increasing difficulty (A.3.2), and a uniform set for evaluation."""

import random

from llama2_jax.miniature.answers import VENDOR, Manner, answer_to
from llama2_jax.miniature.instructions import Standing
from llama2_jax.miniature.requests.howto import ATTACKS, ask_sensitive
from llama2_jax.miniature.requests.kinds import LEVELS, SHARES, ask, understand
from llama2_jax.miniature.splits import EVALUATION, TRAINING, ask_in, kinds_in
from llama2_jax.miniature.streams import pick, stream
from llama2_jax.miniature.tasks import UNSAFE_CATEGORIES
from llama2_jax.miniature.world import build_world

# Within a batch each level is this many times as frequent as the one below it.
HARDER_IS_MORE_FREQUENT = 1.6
# The share of a round's unsafe requests in the frame of an attack; the others are plain.
ATTACKED = 0.6
EVALUATED_KINDS = tuple(kind for kind in SHARES if kind != "identity")
# Earlier turns have only short requests, so that twenty turns fit the context.
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
    split: str = TRAINING,
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
      split: the split of the questions (splits.py): "training", "validation" or "evaluation". Earlier turns are always
        of the first; what matters is the last one.
      purpose: another name draws other prompts of the same distribution.

    Raises:
      ValueError: if the batch is outside 1 to 5, the shares add up to more than 1, or the split is unknown.
    """
    if batch not in LEVELS:
        raise ValueError(f"batch is {batch}; the miniature's batches of prompts are 1 to {len(LEVELS)}")
    _check_shares(unsafe, borderline)
    rng = stream(seed, "prompts", batch, purpose)
    levels = {level: HARDER_IS_MORE_FREQUENT**level for level in LEVELS if level <= batch + 1}
    records = []
    for _ in range(count):
        draw = rng.random()
        if draw < unsafe:
            attack = rng.choice(ATTACKS[1:]) if rng.random() < ATTACKED else ATTACKS[0]
            record = unsafe_prompt(seed, rng, attack, split=split)
        elif draw < unsafe + borderline:
            record = borderline_prompt(seed, rng, split=split)
        else:
            record = harmless_prompt(seed, rng, pick(rng, kinds_in(split, SHARES)), pick(rng, levels), split=split)
        if rng.random() < multi_turn:
            record["messages"] = earlier_turns(seed, rng, rng.choice((1, 1, 2)), VENDOR) + record["messages"]
        records.append(record)
    return records


def evaluation_prompts(
    *,
    seed: int,
    count: int,
    unsafe: float = 0.3,
    borderline: float = 0.14,
    multi_turn: float = 0.15,
    seen: float = 0.3,
    purpose: str = "",
) -> list[dict]:
    """Returns prompts for evaluation, uniform over kinds, levels, categories and attacks; drawn independently.

    Args and records are those of `prompts`, but for:
      seen: the share of prompts with a question of the training split; the others ask what training never asks.
        A record's `seen` says which.

    Raises:
      ValueError: if `seen` is not a share, or the others add up to more than 1.
    """
    _check_shares(unsafe, borderline)
    if not 0 <= seen <= 1:
        raise ValueError(f"seen is {seen}; wanted a share of the prompts, 0 to 1")
    rng = stream(seed, "evaluation_prompts", purpose)
    records = []
    for index in range(count):
        # Low-discrepancy sequences keep the shares in every prefix, so any count measures the same mixture.
        draw, known = (index * 0.6180339887498949) % 1.0, (index * 0.4142135623730951) % 1.0 < seen
        split = TRAINING if known else EVALUATION
        if draw < unsafe:
            record = unsafe_prompt(seed, rng, rng.choice(ATTACKS), split=split)
        elif draw < unsafe + borderline:
            record = borderline_prompt(seed, rng, split=split)
        else:
            record = harmless_prompt(seed, rng, rng.choice(EVALUATED_KINDS), rng.choice(LEVELS), split=split)
        if rng.random() < multi_turn:
            record["messages"] = earlier_turns(seed, rng, rng.choice((1, 2)), VENDOR) + record["messages"]
        records.append({**record, "seen": known})
    return records


def harmless_prompt(
    seed: int, rng: random.Random, kind: str, level: int, *, split: str = TRAINING, demonstrated: bool = False
) -> dict:
    """Returns a single-turn prompt of a kind and a level, with a question of the split."""
    text = ask_in(split, seed, lambda: ask(seed, rng, kind, level, demonstrated))
    return _prompt(text, safety=False, category=kind, level=level)


def borderline_prompt(seed: int, rng: random.Random, *, split: str = TRAINING, demonstrated: bool = False) -> dict:
    """Returns a harmless request that sounds unsafe; half of them in an attack's frame, like unsafe ones."""
    attack = rng.choice(ATTACKS) if rng.random() < 0.5 else "plain"
    return _sensitive_prompt(seed, rng, ("borderline",), attack, split, demonstrated)


def unsafe_prompt(
    seed: int, rng: random.Random, attack: str, *, split: str = TRAINING, demonstrated: bool = False
) -> dict:
    """Returns an unsafe request in the frame of an attack."""
    return _sensitive_prompt(seed, rng, UNSAFE_CATEGORIES, attack, split, demonstrated)


def earlier_turns(seed: int, rng: random.Random, turns: int, manner: Manner) -> list[dict]:
    """Returns finished turns of short harmless requests, answered in a manner."""
    messages: list[dict] = []
    for _ in range(turns):
        messages.append(user(short_request(seed, rng)))
        messages.append(assistant(answer_to(messages, manner, rng, seed=seed)))
    return messages


def short_request(seed: int, rng: random.Random, *, split: str = TRAINING, demonstrated: bool = False) -> str:
    """Returns a question of the split that is short, as is its answer, for dialogues of several turns."""
    kind = pick(rng, kinds_in(split, SHORT_KINDS))
    level = pick(rng, SHORT_LEVELS[kind])
    return ask_in(split, seed, lambda: ask(seed, rng, kind, level, demonstrated))


def user(text: str) -> dict:
    """Returns a user's message."""
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    """Returns an assistant's message."""
    return {"role": "assistant", "content": text}


def system(text: str) -> dict:
    """Returns a system message."""
    return {"role": "system", "content": text}


def _check_shares(unsafe: float, borderline: float) -> None:
    if unsafe + borderline > 1:
        raise ValueError(f"unsafe ({unsafe}) and borderline ({borderline}) are shares: together at most 1")


def _sensitive_prompt(
    seed: int, rng: random.Random, categories: tuple[str, ...], attack: str, split: str, demonstrated: bool
) -> dict:
    world = build_world(seed)
    text = ask_in(split, seed, lambda: ask_sensitive(world, rng, categories, attack, demonstrated))
    (task,) = understand(seed, text, Standing()).details.tasks
    return _prompt(text, safety=task.unsafe, category=task.category, level=task.level, attack=attack)


def _prompt(text: str, *, safety: bool, category: str, level: int, attack: str | None = None) -> dict:
    return {"messages": [user(text)], "safety": safety, "category": category, "level": level, "attack": attack}
