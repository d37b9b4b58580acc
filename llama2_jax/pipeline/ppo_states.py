"""What PPO trains: the policy, its critic if it has one, and the running average of the policy's weights."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from llama2_jax.models.llama import Params
from llama2_jax.pipeline.runtime import Runtime, named_key
from llama2_jax.pipeline.trainable import Trainable, adapter_config, divide
from llama2_jax.training.averaging import start_average
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import TrainState, create_state

# By name: "policy", and where the config has them "critic" and "average".
States = dict[str, TrainState]


def trained_models(config: ConfigDict, policy: Params, critic: Params | None, runtime: Runtime) -> dict[str, Trainable]:
    """Returns what of the models is trained: copies of all parameters, or adapters.

    Args:
      config: the stage's.
      policy: the parameters to start from; not used up. With adapters they are the policy's frozen ones.
      critic: the reward model that the critic starts from; None for no critic. Not used up.
      runtime: the stage's.
    """
    adapters = adapter_config(config)
    starts = {"policy": ("language", policy)}
    if critic is not None:
        # The reward model's trunk; the head is zeroed, since 0 is the mean of the whitened rewards to come.
        zeroed = {"trunk": critic["trunk"], "head": jax.tree.map(jnp.zeros_like, critic["head"])}
        starts["critic"] = ("scalar", zeroed)
    if adapters is None:
        return {name: Trainable(jax.tree.map(jnp.copy, params)) for name, (_, params) in starts.items()}
    return {
        name: divide(head, params, adapters, named_key(runtime.key, f"{name} adapters"), runtime)
        for name, (head, params) in starts.items()
    }


def initial_states(config: ConfigDict, models: Mapping[str, Trainable]) -> States:
    """Returns the states before the first step; the average of the policy's weights begins as the policy."""
    optimizer = make_optimizer(OptimizerConfig(**config.optimizer))
    states = {name: create_state(model.trained, optimizer) for name, model in models.items()}
    return {**states, "average": start_average(states["policy"])} if config.ema_decay else states


def kept_policy(states: States) -> TrainState:
    """Returns the policy that is evaluated and kept: the averaged one where there is an average."""
    policy = states["policy"]
    return policy.replace(params=states["average"].params) if "average" in states else policy


def together(states: States) -> TrainState:
    """Returns all states as one, so that a checkpoint has them at the same moment.

    Each keeps a step of its own: the policy's lags behind while the critic warms up, and one array given to two
    compiled steps would be used up by the first.
    """
    return TrainState(
        states["policy"].step,
        {name: state.params for name, state in states.items()},
        {name: (state.step, state.opt_state) for name, state in states.items()},
    )


def apart(joined: TrainState) -> States:
    """Returns the states of `together`."""
    return {
        name: TrainState(step, joined.params[name], opt_state) for name, (step, opt_state) in joined.opt_state.items()
    }
