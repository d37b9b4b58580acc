"""A policy's weights for generation, consolidated once and not at every token (section 3.2.3).

In training every weight is split over fsdp and gathered at each use. That is cheap for a pass over thousands of tokens,
but not for a step of decoding, which reads all weights for one token a row: the paper saw generation slow down 20
times. So the weights are gathered once, in the compute dtype, before the first token. They are replicated over data and
fsdp and split over tensor only, in addition to the training parameters, and are freed after the last token.
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
    """Returns a language model's parameters converted for all steps of a generation.

    They take additional memory until the last reference to them is gone, except for arrays that need no change: those
    are shared with the parameters.

    Args:
      config: the network; config.consolidate_weights decides whether the weights are replicated over fsdp, or split as
        the parameters are, so that every step gathers them.
      params: its parameters.
      consume: remove the parameters from the dict one by one, until it is empty, so that memory has to fit them once
        and not twice.
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
        embedding=_convert(take(trunk, "embedding"), config.compute_dtype, shardings.embedding),
        layers=by_layer(layers),
        final_norm=_convert(take(trunk, "final_norm"), config.compute_dtype, shardings.final_norm),
        head=_convert(take(head, "kernel"), config.compute_dtype, shardings.head),
    )


_unstack = jax.jit(unstack, static_argnames=("axes", "config", "mesh"))


def _convert(array: Float[Array, "..."], dtype: str, sharding: NamedSharding | None) -> Float[Array, "..."]:
    is_placed = sharding is None or sharding.is_equivalent_to(array.sharding, array.ndim)
    return array if is_placed and array.dtype == dtype else _cast(array, dtype=dtype, sharding=sharding)


@functools.partial(jax.jit, static_argnames=("dtype", "sharding"))
def _cast(array: Float[Array, "..."], *, dtype: str, sharding: NamedSharding | None) -> Float[Array, "..."]:
    array = array.astype(dtype)
    return array if sharding is None else jax.lax.with_sharding_constraint(array, sharding)
