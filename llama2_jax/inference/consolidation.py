"""A policy's weights for generation: laid out once for all its tokens, and not at each (section 3.2.3).

In training every weight is split over fsdp and gathered where it is used. One pass over thousands of tokens pays for
that easily; a step of decoding, which reads all weights for one token a row, does not: the paper saw generation slow
down 20 times. So the weights are gathered once, in the compute dtype, before the first token; they lie whole over data
and fsdp and split over tensor alone, beside the parameters in training, and are given up after the last token.
"""

import functools
import operator
from typing import Any

import jax
from jax.sharding import NamedSharding
from jaxtyping import Array, Float

from llama2_jax.models.config import ModelConfig
from llama2_jax.models.decoding import DecodingWeights, by_layer, unstack, weight_shardings
from llama2_jax.models.layer import LAYER_AXES
from llama2_jax.sharding.mesh import mesh_of


def generation_weights(config: ModelConfig, params: dict[str, Any], consume: bool = False) -> DecodingWeights:
    """Returns a language model's parameters laid out for all steps of a generation.

    They take memory of their own until the last reference to them is gone, except for arrays that need no change: those
    are shared with the parameters.

    Args:
      config: the network; config.consolidate_weights says whether the weights are whole over fsdp, or split as the
        parameters are, so that every step gathers them.
      params: its parameters.
      consume: take them out of the dict one after the other, which is empty in the end: memory then has to fit them
        once and not twice.
    """
    mesh = mesh_of(params)
    shardings = DecodingWeights(None, (), None, None) if mesh is None else weight_shardings(config, mesh)
    take = dict.pop if consume else operator.getitem
    trunk, head = take(params, "trunk"), take(params, "head")
    stacks = take(trunk, "layers")
    layers = {
        name: _unstack(take(stacks, name), axes=LAYER_AXES[name], config=config, mesh=mesh) for name in list(stacks)
    }
    return DecodingWeights(
        embedding=_placed(take(trunk, "embedding"), config.compute_dtype, shardings.embedding),
        layers=by_layer(layers),
        final_norm=_placed(take(trunk, "final_norm"), config.compute_dtype, shardings.final_norm),
        head=_placed(take(head, "kernel"), config.compute_dtype, shardings.head),
    )


_unstack = jax.jit(unstack, static_argnames=("axes", "config", "mesh"))


def _placed(array: Float[Array, "..."], dtype: str, place: NamedSharding | None) -> Float[Array, "..."]:
    lies_there = place is None or place.is_equivalent_to(array.sharding, array.ndim)
    return array if lies_there and array.dtype == dtype else _cast(array, dtype=dtype, place=place)


@functools.partial(jax.jit, static_argnames=("dtype", "place"))
def _cast(array: Float[Array, "..."], *, dtype: str, place: NamedSharding | None) -> Float[Array, "..."]:
    array = array.astype(dtype)
    return array if place is None else jax.lax.with_sharding_constraint(array, place)
