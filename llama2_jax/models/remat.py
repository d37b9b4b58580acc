"""Rematerialisation: what is kept of a layer for the backward pass, and what is recomputed (ModelConfig.remat).

A policy of jax.checkpoint is a function of a layer's operation: it returns whether the result is kept. Results are
known by the names that layer.py and the attention backends give them. The layer's input is always kept.

Kept by each policy, the layer's input included, in KiB a token and layer at the sizes of 7b in bfloat16:

| policy    | device | host | recomputed in the backward pass                                       |
|-----------|--------|------|-----------------------------------------------------------------------|
| none      | all    |      | nothing                                                               |
| dots      | 91     |      | norms and products of elements                                        |
| offload   | 32     | 59   | the same; and 59 KiB go to the host and come back                     |
| attention | 16     |      | all products of weights                                               |
| full      | 8      |      | the same, and the attention                                           |

This is with the attention of cuDNN or splash. XLA's keeps a score for each pair of tokens under "none", which rules
"none" out for long rows, and is recomputed under every other policy.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
from jax.extend.core import Primitive

# The results of a layer's products, queries and keys after their rotation. The result of the feed-forward's `down` is
# missing: no gradient reads it.
WIDE = ("query", "output", "gate", "up")
NARROW = ("key", "value")
ATTENTION = "attention"

# The residuals of cuDNN's attention (its result, and each row's log-sum-exp) have no checkpoint name: they are known by
# the operation.
CUDNN_FORWARD = "dot_product_attention_fwd_wrapper"

_ATTENTION = jax.checkpoint_policies.save_only_these_names(ATTENTION)
_DOTS = jax.checkpoint_policies.save_only_these_names(*WIDE, *NARROW, ATTENTION)
_OFFLOAD = jax.checkpoint_policies.save_and_offload_only_these_names(
    names_which_can_be_saved=(*NARROW, ATTENTION),
    names_which_can_be_offloaded=WIDE,
    offload_src="device",
    offload_dst="pinned_host",
)


def dots(primitive: Primitive, *shapes: Any, **parameters: Any) -> Any:
    """Keeps the results of all products of weights and of the attention: the most, short of everything.

    Only norms, activations and sums are recomputed, a few percent of a step. The first choice if it fits.
    """
    return primitive.name == CUDNN_FORWARD or _DOTS(primitive, *shapes, **parameters)


def offload(primitive: Primitive, *shapes: Any, **parameters: Any) -> Any:
    """Keeps what "dots" keeps, but the wide results (query, output, gate, up) in the host's pinned memory.

    Recomputes no more than "dots". Every wide result moves to the host and back once a step, during the computation.
    It pays if that link is fast and the model wide, since the products grow with the square of the width and the bytes
    with the width. For scanned layers: with unrolled ones the results are fetched back so early that little is gained.
    """
    return primitive.name == CUDNN_FORWARD or _OFFLOAD(primitive, *shapes, **parameters)


def attention(primitive: Primitive, *shapes: Any, **parameters: Any) -> Any:
    """Keeps the attention's result and its kernel's residuals.

    All products of weights are recomputed, which adds a third to the work; the attention, whose work grows with the
    length squared, is not.
    """
    return primitive.name == CUDNN_FORWARD or _ATTENTION(primitive, *shapes, **parameters)


def full(primitive: Primitive, *shapes: Any, **parameters: Any) -> Any:
    """Keeps only the layer's input: the whole forward pass is recomputed, which adds a third to the work."""
    return False


# By the value of ModelConfig.remat; "none" has no policy: without jax.checkpoint everything is kept.
POLICIES: Mapping[str, Any] = MappingProxyType({"dots": dots, "offload": offload, "attention": attention, "full": full})
