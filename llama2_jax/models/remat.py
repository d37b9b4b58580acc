"""Rematerialisation: what the backward pass keeps of a layer, and what it computes again (ModelConfig.remat).

A policy is a function of jax.checkpoint: asked of every operation of a layer, it answers whether the result is kept.
Results are known by the names that layer.py and the attention backends give them. The layer's input is always kept.

What a policy keeps, its layer's input included, in KiB a token and layer at the sizes of 7b in bfloat16:

| policy    | device | host | computed again in the backward pass                                   |
|-----------|--------|------|-----------------------------------------------------------------------|
| none      | all    |      | nothing                                                               |
| dots      | 91     |      | norms and products of elements                                        |
| offload   | 32     | 59   | the same; and 59 KiB go to the host and come back                     |
| attention | 16     |      | all products of weights                                               |
| full      | 8      |      | the same, and the attention                                           |

That is with the attention of cuDNN or splash. XLA's keeps a score for each pair of tokens under "none", which makes
that impossible for long rows, and has them computed again under every other policy.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
from jax.extend.core import Primitive

# The results of a layer's products: what each of its matrices gives, queries and keys turned by their positions. The
# last one, of the feed-forward's `down`, is read by no gradient.
WIDE = ("query", "output", "gate", "up")
NARROW = ("key", "value")
ATTENTION = "attention"

# What cuDNN's attention hands to its backward pass (its result, and each row's log-sum-exp) has no name that a policy
# could ask for: it is known by the operation.
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

    Only norms, activations and sums are computed again: some percent of a step. The first choice where it fits.
    """
    return primitive.name == CUDNN_FORWARD or _DOTS(primitive, *shapes, **parameters)


def offload(primitive: Primitive, *shapes: Any, **parameters: Any) -> Any:
    """Keeps what "dots" keeps, but the wide results (query, output, gate, up) in the host's pinned memory.

    Computes no more than "dots". Every wide result crosses to the host and back once a step, beside the computation:
    it pays where that link is fast and the model wide, since the products grow with the square of the width and the
    bytes with the width. For scanned layers: unrolled ones are fetched back so early that little is won.
    """
    return primitive.name == CUDNN_FORWARD or _OFFLOAD(primitive, *shapes, **parameters)


def attention(primitive: Primitive, *shapes: Any, **parameters: Any) -> Any:
    """Keeps the attention's result, and what its kernel's backward pass reads of it.

    All products of weights are computed again, a third more work than without; the attention is not, of which the
    work grows with the length squared.
    """
    return primitive.name == CUDNN_FORWARD or _ATTENTION(primitive, *shapes, **parameters)


def full(primitive: Primitive, *shapes: Any, **parameters: Any) -> Any:
    """Keeps nothing but the layer's input: the whole forward pass is computed again, a third more work than without."""
    return False


# By the value of ModelConfig.remat; "none" keeps everything and wraps nothing.
POLICIES: Mapping[str, Any] = MappingProxyType({"dots": dots, "offload": offload, "attention": attention, "full": full})
