"""The names and layouts of our parameters in Meta's and Hugging Face's files.

Both store a matrix as [outputs, inputs], the transpose of ours. Meta rotates adjacent pairs of a head's features, as we
do; transformers rotates a feature of the first half with one of the second, and its query and key rows are reordered so
that the result is the same.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from llama2_jax.interop.checkpoint import Piece, pieces
from llama2_jax.models.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Naming:
    """A parameter in the other formats.

    Attributes:
      huggingface: its name there; `{}` stands for the layer.
      meta: its name there; empty if the format has none.
      split: the axis of the stored tensor that Meta's model-parallel files are split along; None: whole in each.
      rotated: the heads whose rows transformers reorders, `heads` or `kv_heads`; empty for all others.
    """

    huggingface: str
    meta: str
    split: int | None = None
    rotated: str = ""


_BOTH = {
    "trunk/embedding": Naming("model.embed_tokens.weight", "tok_embeddings.weight", split=1),
    "trunk/final_norm": Naming("model.norm.weight", "norm.weight"),
    "trunk/layers/attention_norm": Naming("model.layers.{}.input_layernorm.weight", "layers.{}.attention_norm.weight"),
    "trunk/layers/query": Naming(
        "model.layers.{}.self_attn.q_proj.weight", "layers.{}.attention.wq.weight", split=0, rotated="heads"
    ),
    "trunk/layers/key": Naming(
        "model.layers.{}.self_attn.k_proj.weight", "layers.{}.attention.wk.weight", split=0, rotated="kv_heads"
    ),
    "trunk/layers/value": Naming(
        "model.layers.{}.self_attn.v_proj.weight", "layers.{}.attention.wv.weight", split=0
    ),
    "trunk/layers/output": Naming(
        "model.layers.{}.self_attn.o_proj.weight", "layers.{}.attention.wo.weight", split=1
    ),
    "trunk/layers/ffn_norm": Naming(
        "model.layers.{}.post_attention_layernorm.weight", "layers.{}.ffn_norm.weight"
    ),
    "trunk/layers/gate": Naming("model.layers.{}.mlp.gate_proj.weight", "layers.{}.feed_forward.w1.weight", split=0),
    "trunk/layers/up": Naming("model.layers.{}.mlp.up_proj.weight", "layers.{}.feed_forward.w3.weight", split=0),
    "trunk/layers/down": Naming("model.layers.{}.mlp.down_proj.weight", "layers.{}.feed_forward.w2.weight", split=1),
}  # fmt: skip
NAMING = {
    "language": _BOTH | {"head/kernel": Naming("lm_head.weight", "output.weight", split=0)},
    "scalar": _BOTH | {"head/kernel": Naming("score.weight", "")},
}


@dataclasses.dataclass(frozen=True)
class Stored:
    """A piece in another format: its name and its shape there."""

    piece: Piece
    name: str
    shape: tuple[int, ...]


def stored_pieces(config: ModelConfig, head: str, kind: str) -> Iterator[Stored]:
    """Yields all pieces of a model with their names and whole shapes in a format, `huggingface` or `meta`."""
    for piece in pieces(config, head):
        template = getattr(NAMING[head][piece.name], kind)
        shape = piece.shape[::-1] if transposed(piece.name) else piece.shape
        yield Stored(piece, template.format(piece.layer), shape)


def transposed(name: str) -> bool:
    """Whether the other formats store this parameter transposed: all matrices except the embedding."""
    return name != "trunk/embedding" and not name.endswith("norm")


def rows_of_theirs(heads: int, head_dim: int) -> np.ndarray:
    """Returns for each of our query or key features its row in transformers' matrix."""
    return np.arange(heads * head_dim).reshape(heads, 2, head_dim // 2).swapaxes(1, 2).ravel()


def features_of_ours(heads: int, head_dim: int) -> np.ndarray:
    """Returns for each row of transformers' query or key matrix our feature in it."""
    return np.arange(heads * head_dim).reshape(heads, head_dim // 2, 2).swapaxes(1, 2).ravel()
