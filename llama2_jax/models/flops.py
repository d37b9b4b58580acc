"""The operations that a model needs, from its sizes alone: the basis of MFU, however a program computes them.

A multiply-add counts as two. Counted are the matrix products of layers and head, and the causal half of attention; not
counted are the embedding (a look-up), norms, softmax and whatever a backward pass recomputes. A backward pass needs
twice the operations of the forward pass.
"""

from llama2_jax.models.adapters import AdapterConfig, matrix_shapes
from llama2_jax.models.config import ModelConfig


def layer_flops(config: ModelConfig, tokens: int, attended: float) -> float:
    """Returns the operations of a forward pass through the layers.

    Args:
      config: the network.
      tokens: the number of tokens.
      attended: how many tokens each of them attends to, on average.
    """
    kv_dim = config.kv_heads * config.head_dim
    weights = 2 * config.dim * config.dim + 2 * config.dim * kv_dim + 3 * config.dim * config.ffn_hidden
    return config.layers * tokens * (2.0 * weights + 4.0 * config.dim * attended)


def head_flops(config: ModelConfig, tokens: int, head: str = "language") -> float:
    """Returns the operations of the head, with vocab_size outputs a token ("language") or one ("scalar")."""
    return 2.0 * tokens * config.dim * (config.vocab_size if head == "language" else 1)


def forward_flops(config: ModelConfig, rows: int, length: int, head: str = "language") -> float:
    """Returns the operations of a forward pass on rows of one sequence: a token attends to half of it on average."""
    return layer_flops(config, rows * length, length / 2) + head_flops(config, rows * length, head)


def training_flops(
    config: ModelConfig, rows: int, length: int, head: str = "language", adapters: AdapterConfig | None = None
) -> float:
    """Returns the operations of a training step on full rows: about 6 a token and parameter, and attention.

    Where only adapters are trained, the backward pass needs no gradients of the frozen matrices: about 4.
    """
    forward = forward_flops(config, rows, length, head)
    if adapters is None:
        return 3.0 * forward
    attention = layer_flops(config, rows * length, length / 2) - layer_flops(config, rows * length, 0)
    added = sum(adapters.rank * sum(matrix_shapes(config)[name]) for name in adapters.targets) * config.layers
    return 2.0 * forward + attention + 6.0 * rows * length * added
