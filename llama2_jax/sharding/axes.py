"""The logical axes of parameters and activations, and the mesh axes over which they are split."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Rules = Mapping[str, str | tuple[str, ...] | None]

# For parameters, optimizer state (split like its parameters), activations, KV cache and batches. A batch is split over
# `data` and `fsdp`. Each weight is split over `fsdp` along the model's width and gathered when it is used, and over
# `tensor` along heads, feed-forward or vocabulary, where the computation itself is split.
RULES: Rules = {
    "batch": ("data", "fsdp"),
    "lookup_batch": "data",  # rows of the embedding's lookup, in which fsdp splits the table's width
    "length": None,
    "head_dim": None,
    "slots": None,  # of the KV cache
    "hidden": None,  # the width of activations; `embed` is that of weights
    "layers": None,
    "norm": None,
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "ffn": "tensor",
    "vocab": "tensor",
    "scalar": None,
    "rank": None,  # of adapters
}

# The same for weights that are replicated over fsdp and split over tensor only: those of a layer while it is computed,
# and in generation all of a consolidated model.
GATHERED: Rules = {**RULES, "embed": None, "lookup_batch": RULES["batch"]}


def partition_spec(names: Sequence[str | None], rules: Rules = RULES) -> PartitionSpec:
    """Returns the mesh axes of an array whose dimensions have these logical names (None: not split).

    Raises:
      KeyError: if a name is not in the rules; a misspelt axis would otherwise silently not be split.
    """
    return PartitionSpec(*(None if name is None else rules[name] for name in names))


def constrain(x: jax.Array, mesh: Mesh | None, names: Sequence[str | None], rules: Rules = RULES) -> jax.Array:
    """Pins an activation's split over the mesh inside a compiled program; without a mesh returns the array itself.

    The mesh is an argument and not a context, so that no caller can trace a model outside the context by mistake.
    """
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, partition_spec(names, rules)))


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """Replicates a program's results on every device, so that every process can read them."""
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))
