"""An experiment as it would run, as text: --print_config."""

import json
from collections.abc import Iterator, Mapping, Sequence

from ml_collections import ConfigDict

from llama2_jax import recipe

# What is read first in a stage's part.
_FIRST = ("role", "run", "inputs")


def config_text(config: ConfigDict, until: str = "", stages: Sequence[str] = ()) -> str:
    """Returns an experiment's configuration as YAML, with all references resolved and given folders in place.

    What the stages share comes first, then each stage's part in the order in which they run.

    Args:
      config: see recipe.run.
      until: see recipe.run.
      stages: the parts of these stages alone; empty for all of the experiment.

    Raises:
      RecipeError: for an unknown stage, and where the stages and their inputs do not fit together.
    """
    config = recipe.with_given(config)
    recipe.validate(config)
    names = recipe.stages_until(config, until)
    unknown = [name for name in stages if name not in names]
    if unknown:
        raise recipe.RecipeError(f"--stages={','.join(unknown)}: no such stage here; choose from {', '.join(names)}")
    parts = json.loads(config.to_json_best_effort())
    shared = {name: part for name, part in parts.items() if name not in config.stages} | {"stages": list(names)}
    blocks = [] if stages else [shared]
    blocks += [{name: _in_order(parts[name])} for name in names if not stages or name in stages]
    return "\n\n".join("\n".join(_lines(block)) for block in blocks)


def _in_order(part: Mapping) -> dict:
    return {name: part[name] for name in (*_FIRST, *part) if name in part}


def _lines(tree: Mapping, indent: str = "") -> Iterator[str]:
    """JSON's values are YAML's too."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}:"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{name}: {json.dumps(value)}"
