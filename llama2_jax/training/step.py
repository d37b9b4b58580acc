"""One optimizer step, compiled: gradients over microbatches, AdamW, and the numbers to log."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from llama2_jax.training.state import Params, Shardings, TrainState, state_shardings

Batch = Mapping[str, Array]
Counts = Any
Metrics = dict[str, Float[Array, ""]]
Loss = Callable[[Params, Batch, Counts], tuple[Float[Array, ""], Metrics]]
Count = Callable[[Batch], Counts]
# (trained, frozen, draw) -> the parameters that the loss gets; `draw` differs for every microbatch of a training.
Complete = Callable[[Params, Any, Int[Array, ""]], Params]
TrainStep = Callable[..., tuple[TrainState, Metrics]]


def build_train_step(
    loss: Loss,
    count: Count,
    optimizer: optax.GradientTransformation,
    accumulation: int = 1,
    shardings: Shardings | None = None,
    stacked: bool = False,
    complete: Complete | None = None,
) -> TrainStep:
    """Compiles `step(state, batch, learning_rate, frozen=None) -> (state, metrics)`.

    Microbatches are computed one after the other and their losses, metrics and gradients added up. That equals the
    whole batch computed at once, whatever is in the microbatches, because `loss` divides by counts of the whole batch.
    There are two ways to have more than one:

    - `stacked=False`: the step itself distributes the rows, row i to microbatch i % accumulation (so that with rows
      split over devices every device keeps its own). Only for batches whose arrays all are [rows, length, ...].
    - `stacked=True`: every array is [accumulation, ...] and microbatch i is `array[i]`. For batches whose arrays refer
      to each other, such as packed pairs that name the rows of their answers: each microbatch is packed by itself.
      `count` then gets the stacked arrays, which makes no difference to sums over a mask.

    Args:
      loss: `loss(params, microbatch, counts) -> (scalar, metrics)`: contributions, already divided by the counts.
      count: `count(batch)` of the whole batch: what `loss` divides by.
      optimizer: from `make_optimizer`; without the learning rate.
      accumulation: the number of microbatches.
      shardings: a NamedSharding for each parameter. Gradients, their sum over microbatches, the new parameters and
        the moments are pinned to it; without it they may come back whole on every device.
      stacked: see above.
      complete: makes the parameters that `loss` gets of the state's, which are trained, and of `frozen`, which the step
        neither changes nor differentiates; by default the state's are all there are.

    Returns:
      The jitted step (its `lower` gives its memory before it runs). Its metrics are those of `loss` and `loss`,
      `grad_norm` (before clipping) and `learning_rate`. Pass the rate as np.float32: a Python number is another type,
      for which it would be compiled again.

    Raises:
      ValueError: at the first call, if the batch cannot be divided, or frozen parameters are given without `complete`
        or the other way round.
    """

    def loss_of_trained(trained: Params, frozen: Any, draw: Int[Array, ""], microbatch: Batch, counts: Counts) -> tuple:
        return loss(trained if complete is None else complete(trained, frozen, draw), microbatch, counts)

    gradients_of = jax.value_and_grad(loss_of_trained, has_aux=True)

    def contribution(state: TrainState, frozen: Any, index: int | Array, microbatch: Batch, counts: Counts) -> tuple:
        draw = state.step * accumulation + index
        values, gradients = gradients_of(state.params, frozen, draw, microbatch, counts)
        return values, _pin(gradients, shardings)

    def accumulate(state: TrainState, frozen: Any, batch: Batch, counts: Counts) -> tuple:
        if accumulation == 1 and not stacked:
            return contribution(state, frozen, 0, batch, counts)
        microbatches = check_stacked(batch, accumulation) if stacked else deal_rows(batch, accumulation)

        def add(total: tuple, indexed: tuple[Array, Batch]) -> tuple[tuple, None]:
            values, gradients = jax.tree.map(jnp.add, total, contribution(state, frozen, *indexed, counts))
            return (values, _pin(gradients, shardings)), None

        first = jax.tree.map(lambda array: array[0], microbatches)
        shapes = jax.eval_shape(contribution, state, frozen, 0, first, counts)
        values, gradients = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        indexed = jnp.arange(accumulation, dtype=jnp.int32), microbatches
        return jax.lax.scan(add, (values, _pin(gradients, shardings)), indexed)[0]

    def step(
        state: TrainState, batch: Batch, learning_rate: Float[Array, ""], frozen: Any = None
    ) -> tuple[TrainState, Metrics]:
        if (frozen is None) != (complete is None):
            raise ValueError(
                f"the step was built for {'all parameters' if complete is None else 'adapters'}, and frozen parameters "
                f"were {'not ' if frozen is None else ''}given: build it with the adapters that are trained"
            )
        (loss_value, metrics), gradients = accumulate(state, frozen, batch, count(batch))
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = jax.tree.map(lambda param, update: param - learning_rate * update, state.params, updates)
        metrics |= {"loss": loss_value, "grad_norm": optax.tree.norm(gradients), "learning_rate": learning_rate}
        return TrainState(state.step + 1, params, opt_state), metrics

    if shardings is None:
        return jax.jit(step, donate_argnums=0)
    # The state is returned with the sharding that it had: otherwise the next call would be compiled again.
    return jax.jit(step, donate_argnums=0, out_shardings=(state_shardings(optimizer, shardings), None))


def deal_rows(batch: Batch, accumulation: int) -> dict[str, Array]:
    """Turns [rows, length, ...] arrays into [accumulation, rows / accumulation, ...]; row i goes to microbatch i % n.

    Raises:
      ValueError: if the arrays do not all have the same rows and length, or the rows do not divide.
    """
    shapes = {name: array.shape for name, array in batch.items()}
    if len({shape[:2] for shape in shapes.values()}) != 1 or any(len(shape) < 2 for shape in shapes.values()):
        raise ValueError(
            f"accumulation={accumulation} cannot divide this batch: rows can be distributed only if every array is "
            f"[rows, length, ...], but the shapes are {shapes}. Arrays that refer to rows of others must be prepared "
            "for each microbatch and stacked: pass arrays of shape [accumulation, ...] and stacked=True."
        )
    rows = next(iter(shapes.values()))[0]
    if rows % accumulation:
        raise ValueError(f"{rows} rows cannot be distributed evenly to accumulation={accumulation} microbatches")
    return {
        name: array.reshape(rows // accumulation, accumulation, *array.shape[1:]).swapaxes(0, 1)
        for name, array in batch.items()
    }


def check_stacked(batch: Batch, accumulation: int) -> Batch:
    """Returns the batch itself, if every array has a leading axis with one entry per microbatch.

    Raises:
      ValueError: if an array has not; the message names it.
    """
    wrong = {name: array.shape for name, array in batch.items() if array.shape[:1] != (accumulation,)}
    if wrong:
        raise ValueError(
            f"with stacked=True every array must be [accumulation={accumulation}, ...], but found the shapes {wrong}"
        )
    return batch


def _pin(gradients: Params, shardings: Shardings | None) -> Params:
    return gradients if shardings is None else jax.lax.with_sharding_constraint(gradients, shardings)
