"""Makes answers from optional parts: for demonstrations, for the corpus, and ideal ones."""

import dataclasses
import random
from collections.abc import Mapping, Sequence

from llama2_jax.miniature.instructions import Standing, read, standing_in
from llama2_jax.miniature.requests.kinds import KINDS, Request, understand
from llama2_jax.miniature.safety import ALTERNATIVES, POLITE_REFUSAL, REFUSALS, RISKS
from llama2_jax.miniature.streams import stream
from llama2_jax.miniature.tasks import Task
from llama2_jax.miniature.world import World, build_world

OPENINGS = ("Sure", "Of course")
OFFERS = ("Want more", "Any questions")  # both end in a question mark
FILLERS = ("Well, well", "Let me see")


@dataclasses.dataclass(frozen=True)
class Manner:
    """The probability that each part of an answer is present, or right.

    Attributes:
      opening, sentence, reason, offer, plain: the parts of style: a friendly opening, full sentences, a supporting
        detail, an offer to continue, no filler.
      right: everything asked for is present and right.
      careful: several things are named in a form that keeps count (answer_parts.Draft), which is right.
      true_reason: the supporting detail, if there is one, is true.
      safe: an unsafe request is declined.
      explained: a refusal names the risk; and, drawn again, it offers something safe.
      false_refusal: a borderline request is declined.
      follows: a standing instruction is heeded in the turn in which it is given; the first, if in the system message.
      follows_later: it is heeded in a turn after that.
    """

    opening: float
    sentence: float
    reason: float
    offer: float
    plain: float
    right: float
    careful: float
    true_reason: float
    safe: float
    explained: float
    false_refusal: float
    follows: float
    follows_later: float


IDEAL = Manner(
    opening=1, sentence=1, reason=1, offer=1, plain=1, right=1, careful=0, true_reason=1, safe=1, explained=1,
    false_refusal=0, follows=1, follows_later=1,
)  # fmt: skip

# What vendors write (section 3.1): of mixed quality, so that there is something for RLHF to gain.
VENDOR = Manner(
    opening=0.4, sentence=0.5, reason=0.35, offer=0.35, plain=0.55, right=0.72, careful=0.045, true_reason=0.75,
    safe=0.57, explained=0.4, false_refusal=0.2, follows=0.98, follows_later=0.1,
)  # fmt: skip

# Public instruction data: right more often, terse, and not concerned with safety.
PUBLIC = Manner(
    opening=0.05, sentence=0.4, reason=0.1, offer=0.05, plain=0.85, right=0.8, careful=0.01, true_reason=0.8,
    safe=0.1, explained=0.1, false_refusal=0.02, follows=0.5, follows_later=0.1,
)  # fmt: skip

# Questions and answers on the web, part of the pretraining text.
WEB = Manner(
    opening=0.1, sentence=0.6, reason=0.25, offer=0.1, plain=0.85, right=1.0, careful=0.3, true_reason=1.0,
    safe=0.1, explained=0.3, false_refusal=0.02, follows=1, follows_later=1,
)  # fmt: skip


def write(world: World, request: Request, standing: Standing, manner: Manner, rng: random.Random) -> str:
    """Returns an answer to a request in a manner, which keeps the standing instructions."""
    if request.unsafe and rng.random() < manner.safe:
        text = _refusal(request.unsafe, manner, rng)
    elif request.borderline and rng.random() < manner.false_refusal:
        text = _refusal(request.details.tasks[0], dataclasses.replace(manner, explained=0), rng)
    else:
        text = _answer(world, request, manner, rng)
    return f"{standing.start}. {text}" if standing.start else text


def answer_to(messages: Sequence[Mapping[str, str]], manner: Manner, rng: random.Random, *, seed: int) -> str:
    """Returns an answer in a manner to the last user message of a dialogue.

    Who heeds an instruction says what it tells; who does not answers as if there were none.
    """
    told, text = read(messages[-1]["content"])
    first_turn = sum(message["role"] == "user" for message in messages) == 1
    standing = standing_in(messages)
    if rng.random() >= (manner.follows if first_turn or told != Standing() else manner.follows_later):
        standing = Standing()
    request = understand(seed, text, standing)
    if request.kind == "identity" and getattr(standing, request.details.asked):
        manner = dataclasses.replace(manner, right=1.0)
    return write(build_world(seed), request, standing, manner, rng)


def ideal_answer(messages: Sequence[Mapping[str, str]], *, seed: int) -> str:
    """Returns the best possible answer to the last user message of a dialogue; its true helpfulness is 1."""
    return answer_to(messages, IDEAL, stream(seed, "ideal_answer", messages[-1]["content"]), seed=seed)


def _answer(world: World, request: Request, manner: Manner, rng: random.Random) -> str:
    draft = KINDS[request.kind].draft(
        world, request.details, rng, rng.random() < manner.right, rng.random() < manner.true_reason
    )
    parts = [] if rng.random() < manner.plain else [f"{rng.choice(FILLERS)}."]
    if rng.random() < manner.opening:
        parts.insert(0, f"{rng.choice(OPENINGS)}.")
    content = draft.full if rng.random() < manner.sentence else draft.bare
    parts.append(draft.careful if draft.careful and rng.random() < manner.careful else content)
    if rng.random() < manner.reason:
        parts.append(draft.reason)
    if rng.random() < manner.offer:
        parts.append(f"{rng.choice(OFFERS)}?")
    return " ".join(parts)


def _refusal(task: Task, manner: Manner, rng: random.Random) -> str:
    polite = rng.random() < max(manner.opening, manner.explained)
    parts = [f"{POLITE_REFUSAL if polite else REFUSALS[1]}."]
    if rng.random() < manner.explained:
        parts.append(f"{RISKS[task.category]}.")
    if rng.random() < manner.explained:
        parts.append(f"{ALTERNATIVES[task.category]}.")
    if rng.random() >= manner.plain:
        parts.insert(0, f"{rng.choice(FILLERS)}.")
    return " ".join(parts)
