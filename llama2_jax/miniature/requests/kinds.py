"""All kinds of request: asking one at random, and understanding a text as one of them."""

import dataclasses
import functools
import random
from types import ModuleType
from typing import Any

from llama2_jax.miniature.instructions import Standing
from llama2_jax.miniature.requests import arithmetic, comparison, fact, howto, identity, item_list, story
from llama2_jax.miniature.requests.howto import HowtoRequest
from llama2_jax.miniature.tasks import Task
from llama2_jax.miniature.world import build_world

LEVELS = (1, 2, 3, 4, 5)

KINDS: dict[str, ModuleType] = {
    "fact": fact,
    "arithmetic": arithmetic,
    "list": item_list,
    "howto": howto,
    "story": story,
    "comparison": comparison,
    "identity": identity,
}

# The share of each kind; facts are most frequent, since half of them are taught only by pretraining.
SHARES = {
    "fact": 0.28,
    "arithmetic": 0.17,
    "list": 0.16,
    "howto": 0.16,
    "story": 0.10,
    "comparison": 0.10,
    "identity": 0.03,
}


@dataclasses.dataclass(frozen=True)
class Request:
    """A user's request: the kind, and the details parsed by its module."""

    kind: str
    details: Any

    @property
    def unsafe(self) -> Task | None:
        """The task that must not be helped with, if there is one."""
        return self.details.unsafe if isinstance(self.details, HowtoRequest) else None

    @property
    def borderline(self) -> bool:
        """Whether it sounds unsafe but is not."""
        return isinstance(self.details, HowtoRequest) and any(t.category == "borderline" for t in self.details.tasks)


def ask(seed: int, rng: random.Random, kind: str, level: int, demonstrated: bool) -> str:
    """Returns a harmless request of a kind and a level; a `demonstrated` one has only what demonstrations show."""
    return KINDS[kind].ask(build_world(seed), rng, level, demonstrated)


@functools.lru_cache(maxsize=65536)
def understand(seed: int, text: str, standing: Standing) -> Request:
    """Parses a user's text (without standing instructions).

    Raises:
      ValueError: if the text is not a request of the small world.
    """
    world = build_world(seed)
    if asked := identity.understand(text, standing.figure, standing.hobby):
        return Request("identity", asked)
    for kind, module in KINDS.items():
        if kind != "identity" and (asked := module.understand(world, text)) is not None:
            return Request(kind, asked)
    raise ValueError(
        f"no request of the small world of seed {seed}: {text!r}; its truth covers only texts made by "
        "llama2_jax.miniature with the same seed"
    )
