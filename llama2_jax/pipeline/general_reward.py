"""The general reward model, which watches over the two that policies are trained for (section 3.4.1).

It is trained on open comparisons alone and takes part in no training of a policy. PPO and the evaluation have it score
the same answers as the other two, and warn where the optimised reward rises while the general one falls.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Float
from ml_collections import ConfigDict

from llama2_jax.evaluation.over_optimisation import Rewards, reward_changes
from llama2_jax.inference.score import rewards
from llama2_jax.models.adapters import AdapterConfig
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.device_programs import abstract_model
from llama2_jax.pipeline.runtime import Inputs, Runtime
from llama2_jax.pipeline.trainable import as_frozen
from llama2_jax.sizing.programs import ResidentModel
from llama2_jax.training.model_folder import load_model

# Token ids of prompts with their answers, n sequences -> the general reward's logits [n].
GeneralReward = Callable[[Sequence[Sequence[int]]], Float[np.ndarray, " n"]]


def load_general_reward(inputs: Inputs, runtime: Runtime, beside: AdapterConfig | None = None) -> GeneralReward | None:
    """Loads the stage's input "general", beside adapters as `as_frozen` leaves it; None if it has none."""
    if "general" not in inputs:
        return None
    params = load_model(inputs["general"], runtime.mesh, "scalar").params
    params = params if beside is None else as_frozen(params, runtime.model, beside)
    return functools.partial(rewards, runtime.model, params)


def abstract_general_reward(
    config: ConfigDict, model: ModelConfig, mesh: Mesh, beside: AdapterConfig | None = None
) -> tuple[ResidentModel, ...]:
    """Returns what `load_general_reward` puts on the devices: one model, or none."""
    return (abstract_model("general", model, mesh, "scalar", beside),) if "general" in config.inputs else ()


def rings_over_optimisation(start: Rewards, now: Rewards, iteration: int) -> bool:
    """Returns whether the optimised reward rose and the general one fell since PPO's start; if so, logs a warning.

    Args:
      start, now: the rewards of the answers to the held-out prompts, before the first iteration and now.
      iteration: of PPO, for the message.
    """
    changes = reward_changes(start, now)
    if changes is None or not changes.over_optimised:
        return False
    logging.warning(
        "PPO iteration %d: over-optimisation. Since the start, %s. The first rises and the second, which nothing is "
        "trained for, falls, both by more than chance: the policy exploits the reward models. Raise kl_coefficient, "
        "stop earlier (iterations), or train the reward models on new comparisons of this policy's answers.",
        iteration, changes,
    )  # fmt: skip
    return True


def changes_of_versions(names: Sequence[str], rewards_of: Sequence[Rewards]) -> list[dict | None]:
    """Returns how both rewards changed from each version to the next, and logs a warning where they part.

    Args:
      names: the versions, in order.
      rewards_of: the rewards of each version's answers to the same prompts.

    Returns:
      The fields of `RewardChanges` with `over_optimised` for each version since the one before it; None for the first
      version, and without a general reward.
    """
    found: list[dict | None] = [None]
    for (earlier, before), (later, after) in itertools.pairwise(zip(names, rewards_of, strict=True)):
        changes = reward_changes(before, after)
        if changes and changes.over_optimised:
            logging.warning(
                "%s is over-optimised: since %s, %s. It exploits the reward models: train them on new comparisons of "
                "its answers, or make it again with a higher kl_coefficient or fewer iterations of PPO.",
                later, earlier, changes,
            )  # fmt: skip
        found.append(changes and {**dataclasses.asdict(changes), "over_optimised": changes.over_optimised})
    return found
