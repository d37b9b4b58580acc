"""The operations that a model needs, by its sizes alone: what MFU is measured by, however a program computes them.

A multiply-add counts as two. Counted are the matrix products of layers and head and, of attention, the causal half;
not counted are the embedding (a look-up), norms, softmax and whatever a backward pass computes again. A backward pass
needs twice the forward pass.
"""

from llama2_jax.models.config import ModelConfig


def layer_flops(config: ModelConfig, tokens: int, attended: float) -> float:
    """A forward pass through the layers.

    Args:
      config: the network.
      tokens: how many go through.
      attended: how many tokens each of them attends to, on average.
    """
    kv_dim = config.kv_heads * config.head_dim
    weights = 2 * config.dim * config.dim + 2 * config.dim * kv_dim + 3 * config.dim * config.ffn_hidden
    return config.layers * tokens * (2.0 * weights + 4.0 * config.dim * attended)


def head_flops(config: ModelConfig, tokens: int, head: str = "language") -> float:
    """The head on so many tokens: of the vocabulary ("language") or of one number ("scalar")."""
    return 2.0 * tokens * config.dim * (config.vocab_size if head == "language" else 1)


def forward_flops(config: ModelConfig, rows: int, length: int, head: str = "language") -> float:
    """A forward pass of full rows, each one sequence: a token attends to half of its row on average."""
    return layer_flops(config, rows * length, length / 2) + head_flops(config, rows * length, head)


def training_flops(config: ModelConfig, rows: int, length: int, head: str = "language") -> float:
    """A training step on full rows: about 6 operations a token and parameter, and attention."""
    return 3.0 * forward_flops(config, rows, length, head)
