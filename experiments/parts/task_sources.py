"""Tasks of one turn: what a teacher continues, and what its students are compared with and asked (alpaca.py)."""

import dataclasses
from collections.abc import Callable

from ml_collections import FieldReference

# 175 in Self-Instruct and Alpaca.
SEED_TASKS = 175


@dataclasses.dataclass(frozen=True)
class TaskSources:
    """What the experiment alpaca.py reads.

    Attributes:
      seeds: dialogues of one turn, from which a teacher writes more.
      demonstrations: so many dialogues of one turn by people.
      prompts: prompts of one turn that all versions answer; `seen` if training asks them too.
    """

    seeds: dict[str, dict]
    demonstrations: Callable[[int | FieldReference], dict[str, dict]]
    prompts: dict[str, dict]


def miniature_tasks() -> TaskSources:
    """Returns the miniature's: terse answers by people, seeds drawn apart."""
    return TaskSources(
        seeds={"seeds": _demonstrations(count=SEED_TASKS, purpose="seeds")},
        demonstrations=lambda count: {"public": _demonstrations(count=count)},
        prompts={"prompts": _miniature("prompts.evaluation_prompts", "prompts", count=500, seen=0.3, multi_turn=0.0)},
    )


def real_tasks(demonstrations: Callable[..., dict], held_out: dict) -> TaskSources:
    """Returns Self-Instruct's seed tasks; people's demonstrations are Dolly's.

    Args:
      demonstrations: of a limit, people's demonstrations.
      held_out: such demonstrations that nothing trains on, whose instructions are the prompts.
    """
    path = "sft/self_instruct/seed_tasks.jsonl"
    return TaskSources(
        seeds={"self_instruct": {"path": path, "format": "self_instruct", "limit": SEED_TASKS}},
        demonstrations=demonstrations,
        prompts=held_out,
    )


def _demonstrations(**arguments) -> dict:
    return _miniature("demonstrations.public_demonstrations", "dialogues", **arguments)


def _miniature(function: str, format: str, **arguments) -> dict:
    return {"function": f"llama2_jax.miniature.{function}", "format": format, "arguments": arguments}
