"""A policy's weights for generation: laid out once for all its tokens, and not at each (section 3.2.3).

In training every weight is split over fsdp and gathered where it is used. One pass over thousands of tokens pays for
that easily; a step of decoding, which reads all weights for one token a row, does not: the paper saw generation slow
down 20 times. So the weights are gathered once, in the compute dtype, before the first token; they lie whole over data
and fsdp and split over tensor alone, beside the parameters in training, and are given up after the last token.
"""

import functools
from collections.abc import Mapping

import jax
from jax.sharding import NamedSharding
from jaxtyping import Array, Float

from llama2_jax.models.config import ModelConfig
from llama2_jax.models.decoding import DecodingWeights, unstacked_layers, weight_shardings
from llama2_jax.sharding.mesh import mesh_of


def generation_weights(config: ModelConfig, params: Mapping) -> DecodingWeights:
    """A language model's parameters, laid out for all steps of a generation.

    They take memory of their own until the last reference to them is gone, but for arrays that need no change: those
    are shared with the parameters.

    Args:
      config: the network; config.consolidate_weights says whether the weights lie whole over fsdp, or split as the
        parameters are, so that every step gathers them.
      params: its parameters, which stay as they are.
    """
    mesh = mesh_of(params)
    places = DecodingWeights(None, (), None, None) if mesh is None else weight_shardings(config, mesh)
    return DecodingWeights(
        embedding=_placed(params["trunk"]["embedding"], config.compute_dtype, places.embedding),
        layers=_unstacked_layers(params["trunk"]["layers"], config=config, mesh=mesh),
        final_norm=_placed(params["trunk"]["final_norm"], config.compute_dtype, places.final_norm),
        head=_placed(params["head"]["kernel"], config.compute_dtype, places.head),
    )


_unstacked_layers = jax.jit(unstacked_layers, static_argnames=("config", "mesh"))


def _placed(array: Float[Array, "..."], dtype: str, place: NamedSharding | None) -> Float[Array, "..."]:
    lies_there = place is None or place.is_equivalent_to(array.sharding, array.ndim)
    return array if lies_there and array.dtype == dtype else _cast(array, dtype=dtype, place=place)


@functools.partial(jax.jit, static_argnames=("dtype", "place"))
def _cast(array: Float[Array, "..."], *, dtype: str, place: NamedSharding | None) -> Float[Array, "..."]:
    array = array.astype(dtype)
    return array if place is None else jax.lax.with_sharding_constraint(array, place)
