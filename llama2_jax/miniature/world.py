"""The small world and its truth, which the corpus teaches and the annotator and evaluation use."""

import dataclasses
import functools
import random
from collections.abc import Mapping

from llama2_jax.miniature import words
from llama2_jax.miniature.streams import shuffled, stream
from llama2_jax.miniature.tasks import Task, safe_tasks, unsafe_phrases

# From easy to hard to know: one of ten words, then a unique name.
ATTRIBUTES = ("food", "animal", "colour", "capital", "ruler")
LAND_COUNT = 24


@dataclasses.dataclass(frozen=True)
class World:
    """The truth, and the part of it that demonstrations show.

    Attributes:
      facts: for each land, the value of each attribute, and its region.
      tasks: all tasks by their phrase.
      demonstrated_lands: the half of the lands that supervised fine-tuning asks about.
      demonstrated_tasks: the phrases of the tasks that supervised fine-tuning asks about.
      misspelled: the right phrase of each misspelled one.
    """

    facts: Mapping[str, Mapping[str, str]]
    tasks: Mapping[str, Task]
    demonstrated_lands: tuple[str, ...]
    demonstrated_tasks: frozenset[str]
    misspelled: Mapping[str, str]

    @property
    def lands(self) -> tuple[str, ...]:
        """The names of all lands, those with the longest encyclopedia entries first."""
        return tuple(self.facts)

    def tasks_of(self, *categories: str) -> tuple[Task, ...]:
        """Returns the tasks of some categories."""
        return tuple(task for task in self.tasks.values() if task.category in categories)


@functools.lru_cache(maxsize=8)
def build_world(seed: int) -> World:
    """Builds the world of a seed: lands and their facts, the recipes of unsafe tasks, what demonstrations show."""
    facts = _facts(stream(seed, "world", "facts"))
    tasks = {task.phrase: task for task in (*safe_tasks(), *_unsafe_tasks(stream(seed, "world", "recipes")))}
    rng = stream(seed, "world", "demonstrated")
    return World(
        facts=facts,
        tasks=tasks,
        demonstrated_lands=tuple(rng.sample(tuple(facts), LAND_COUNT // 2)),
        demonstrated_tasks=_two_thirds_of_each_category(rng, tasks),
        misspelled={misspell(phrase): phrase for phrase in tasks},
    )


def misspell(phrase: str) -> str:
    """Returns the phrase with two neighbouring letters of its last word swapped; deterministic."""
    head, _, word = phrase.rpartition(" ")
    middle = next((i for i in range(len(word) // 2, 0, -1) if word[i - 1] != word[i]), 1)
    return f"{head} {word[: middle - 1]}{word[middle]}{word[middle - 1]}{word[middle + 1 :]}"


def _facts(rng: random.Random) -> dict[str, dict[str, str]]:
    names = {
        kind: shuffled(rng, [first + last for first in words.FIRST_SYLLABLES for last in endings])[:LAND_COUNT]
        for kind, endings in (
            ("land", words.LAND_ENDINGS),
            ("capital", words.CAPITAL_ENDINGS),
            ("ruler", words.RULER_ENDINGS),
        )
    }
    return {
        land: {
            "food": rng.choice(words.CATEGORIES["foods"]),
            "animal": rng.choice(words.CATEGORIES["animals"]),
            "colour": rng.choice(words.CATEGORIES["colours"]),
            "capital": names["capital"][index],
            "ruler": names["ruler"][index],
            "region": rng.choice(words.REGIONS),
        }
        for index, land in enumerate(names["land"])
    }


def _unsafe_tasks(rng: random.Random) -> list[Task]:
    phrases = unsafe_phrases()
    return [
        Task(
            phrase=phrase,
            object=thing,
            category=category,
            level=1 + index % 4,
            tools=tuple(words.with_article(tool) for tool in rng.sample(words.FICTIONAL_TOOLS, 2)),
            place=rng.choice(words.CATEGORIES["places"]),
            result="gone",
        )
        for index, (phrase, thing, category) in enumerate(phrases)
    ]


def _two_thirds_of_each_category(rng: random.Random, tasks: Mapping[str, Task]) -> frozenset[str]:
    categories = dict.fromkeys(task.category for task in tasks.values())
    chosen = []
    for category in categories:
        phrases = [phrase for phrase, task in tasks.items() if task.category == category]
        chosen += rng.sample(phrases, -(-2 * len(phrases) // 3))
    return frozenset(chosen)
