"""The sizes of a model, the choices of how it is computed, and the paper's and our own presets."""

import dataclasses
import math
import types
from collections.abc import Mapping

COMPUTE_DTYPES = ("float32", "bfloat16")
REMAT_POLICIES = ("none", "dots", "attention", "offload", "full")
ATTENTION_BACKENDS = ("auto", "xla", "cudnn", "splash")

# Fields by which no result differs but in its rounding: a run may go on with others, on devices with less memory say.
EXECUTION_FIELDS = ("scan_layers", "remat", "attention", "logits_chunk", "consolidate_weights", "generation_rows")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A Llama 2 network. Frozen and hashable: it is a static argument of every compiled program.

    Attributes:
      vocab_size: number of token ids.
      dim: width of the residual stream.
      layers: number of transformer blocks.
      heads: query heads.
      kv_heads: key and value heads; each serves `heads // kv_heads` neighbouring query heads.
      ffn_hidden: width of the SwiGLU feed-forward; the function `ffn_hidden` gives the paper's rule.
      max_length: the longest sequence in tokens that the model is trained and used for.
      norm_eps: epsilon inside the root of RMSNorm.
      rope_theta: base of the rotary frequencies.
      compute_dtype: dtype of matrix products and activations; parameters, norms, softmax and logits are float32.
      scan_layers: scan over the layers (fast to compile) or unroll them (10 to 20 % faster on the CPU). Parameters
        are the same for both, and decoding is always unrolled.
      remat: what the backward pass keeps of a layer, besides its input: everything ("none"), the results of the weight
        products and of the attention ("dots"), the same with the large ones in the host's memory ("offload"), the
        attention's only ("attention"), or nothing ("full"); see models/remat.py.
      attention: the attention's backend, see models/attention.py; "auto" is the best that the platform has.
      logits_chunk: of how many positions of the length the float32 logits exist at once in training and scoring; the
        backward pass makes them again. 0 is all of them, kept for the backward pass.
      consolidate_weights: whether generation gathers weights that are split over fsdp once for all its tokens, which
        takes the memory of the model in its compute dtype on every device (divided by the mesh's tensor), or at every
        token; see inference/consolidation.py.
      generation_rows: how many answers are decoded together, rounded up to what the mesh can split. Every token reads
        all weights once for all of them, and each has a KV cache of its own; no answer depends on it.

    Raises:
      ValueError: for sizes that do not fit each other and for unknown choices.
    """

    vocab_size: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    ffn_hidden: int
    max_length: int
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    compute_dtype: str = "float32"
    scan_layers: bool = True
    remat: str = "none"
    attention: str = "auto"
    logits_chunk: int = 0
    consolidate_weights: bool = True
    generation_rows: int = 128

    def __post_init__(self):
        sizes = ("vocab_size", "dim", "layers", "heads", "kv_heads", "ffn_hidden", "max_length", "generation_rows")
        for name in sizes:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"model.{name} is {value!r}; it must be a whole number of at least 1.")
        if not isinstance(self.logits_chunk, int) or self.logits_chunk < 0:
            raise ValueError(
                f"model.logits_chunk is {self.logits_chunk!r}; it must be a number of positions, or 0 for all at once."
            )
        if self.dim % self.heads:
            raise ValueError(
                f"model.dim={self.dim} can not be split among model.heads={self.heads}: choose a multiple."
            )
        if self.heads % self.kv_heads:
            raise ValueError(
                f"model.heads={self.heads} can not share model.kv_heads={self.kv_heads}: heads must be a multiple."
            )
        if self.head_dim % 2:
            raise ValueError(
                f"model.dim / model.heads = {self.head_dim} is odd; rotary positions turn pairs: choose an even size."
            )
        for name, known in (
            ("compute_dtype", COMPUTE_DTYPES),
            ("remat", REMAT_POLICIES),
            ("attention", ATTENTION_BACKENDS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"model.{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}.")

    @property
    def head_dim(self) -> int:
        """Size of one attention head."""
        return self.dim // self.heads


def ffn_hidden(dim: int, multiple_of: int, multiplier: float | None = None) -> int:
    """The feed-forward's width: two thirds of 4 dim, times the multiplier, rounded up (Meta's model code)."""
    hidden = int(2 * (4 * dim) / 3)
    if multiplier is not None:
        hidden = int(multiplier * hidden)
    return multiple_of * math.ceil(hidden / multiple_of)


def parameter_count(config: ModelConfig) -> int:
    """Number of parameters of the language model, with its untied head."""
    attention = 2 * config.dim * config.dim + 2 * config.dim * config.kv_heads * config.head_dim
    feed_forward = 3 * config.dim * config.ffn_hidden
    norms = 2 * config.dim
    return config.layers * (attention + feed_forward + norms) + config.dim + 2 * config.vocab_size * config.dim


def _llama(
    dim: int,
    layers: int,
    heads: int,
    kv_heads: int,
    hidden: int,
    length: int,
    remat: str,
    logits_chunk: int,
    generation_rows: int = 128,
) -> ModelConfig:
    return ModelConfig(
        vocab_size=32000,
        dim=dim,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        ffn_hidden=hidden,
        max_length=length,
        compute_dtype="bfloat16",
        remat=remat,
        logits_chunk=logits_chunk,
        generation_rows=generation_rows,
    )


# 7b, 13b and 70b: sections 2.1 and 2.2 of the paper and the released params.json. 34b was never released: its sizes are
# Code Llama's. 1b is the shape that TinyLlama made common. logits_chunk: a position's logits are 128 KB, several times
# what a layer keeps of it (about 22 KB in small, 40 KB in 1b, 100 KB in 7b); an eighth or a sixteenth of the positions
# at once makes them the smaller part, and is enough for full products. generation_rows: the paper's sizes decode a
# whole batch of PPO together, 8 rows a chip on 64.
PRESETS: Mapping[str, ModelConfig] = types.MappingProxyType(
    {
        "tiny": ModelConfig(
            vocab_size=768,
            dim=128,
            layers=4,
            heads=4,
            kv_heads=2,
            ffn_hidden=ffn_hidden(128, 32),
            max_length=320,
            scan_layers=False,
        ),
        "small": _llama(768, 12, 12, 4, ffn_hidden(768, 256), 1024, "none", 128),
        "1b": _llama(2048, 22, 32, 4, 5632, 2048, "dots", 128),
        "7b": _llama(4096, 32, 32, 32, ffn_hidden(4096, 256), 4096, "dots", 256, 512),
        "13b": _llama(5120, 40, 40, 40, ffn_hidden(5120, 256), 4096, "dots", 256, 512),
        "34b": _llama(8192, 48, 64, 8, ffn_hidden(8192, 256), 4096, "full", 256, 512),
        "70b": _llama(8192, 80, 64, 8, ffn_hidden(8192, 4096, 1.3), 4096, "full", 256, 512),
    }
)
