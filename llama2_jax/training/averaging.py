"""An exponential moving average of weights in training (InstructGPT, appendix C.4)."""

import functools

import jax
import jax.numpy as jnp

from llama2_jax.training.state import Params, TrainState


def start_average(state: TrainState) -> TrainState:
    """Returns the average before the first step: a copy of the weights that are trained, and no optimizer state."""
    return TrainState(jnp.copy(state.step), jax.tree.map(jnp.copy, state.params), ())


@functools.partial(jax.jit, static_argnames="decay", donate_argnums=0)
def update_average(average: TrainState, params: Params, *, decay: float) -> TrainState:
    """Returns the average after a step: decay * average + (1 - decay) * params.

    It begins as the weights themselves, so nothing is divided by 1 - decay ** steps.

    Args:
      average: from `start_average`; donated.
      params: the weights after the step; with adapters these alone.
      decay: from 0 (the weights of the last step) to below 1.
    """
    moved = jax.tree.map(lambda old, new: old + (1.0 - decay) * (new - old), average.params, params)
    return TrainState(average.step + 1, moved, average.opt_state)
