"""The configuration of a model: its sizes, how it is computed, and presets (the paper's and our own)."""

import dataclasses
import math
import types
from collections.abc import Mapping

COMPUTE_DTYPES = ("float32", "bfloat16")
REMAT_POLICIES = ("none", "dots", "attention", "offload", "full")
ATTENTION_BACKENDS = ("auto", "xla", "cudnn", "splash")

# These fields change results by no more than rounding, so a run may resume with other values (with less memory, say).
EXECUTION_FIELDS = (
    "scan_layers", "remat", "attention", "logits_chunk", "consolidate_weights", "generation_rows", "scoring_tokens",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A Llama 2 network. Frozen and hashable: it is a static argument of every compiled program.

    Attributes:
      vocab_size: number of token ids.
      dim: width of the residual stream.
      layers: number of transformer blocks.
      heads: query heads.
      kv_heads: key and value heads; each serves `heads // kv_heads` neighbouring query heads.
      ffn_hidden: width of the SwiGLU feed-forward; by the paper's rule in the function `ffn_hidden`.
      max_length: the context length in tokens, in training and in use.
      norm_eps: epsilon inside the root of RMSNorm.
      rope_theta: base of the rotary frequencies.
      compute_dtype: dtype of matrix products and activations; parameters, norms, softmax and logits are float32.
      scan_layers: scan over the layers (fast to compile) or unroll them (10 to 20 % faster on the CPU). Parameters
        are the same for both, and decoding is always unrolled.
      remat: what is kept of a layer for the backward pass, besides its input: everything ("none"), the results of the
        weight products and of the attention ("dots"), the same with the large ones in the host's memory ("offload"),
        the attention's only ("attention"), or nothing ("full"); see models/remat.py.
      attention: the attention's backend, see models/attention.py; "auto" is the best that the platform has.
      logits_chunk: at how many positions the float32 logits exist at once in training and scoring; the backward pass
        recomputes them. 0 is all positions, kept for the backward pass.
      consolidate_weights: whether generation gathers weights that are split over fsdp once for all its tokens, which
        takes the memory of the model in its compute dtype on every device (divided by the mesh's tensor), or at every
        token; see inference/consolidation.py.
      generation_rows: how many answers are decoded together, rounded up to what the mesh can split. A decoding step
        reads all weights once for the whole batch, and each answer has its own KV cache; no answer depends on it.
      scoring_tokens: how many tokens are scored together, in rows of few lengths, a row on each device at least:
        enough to keep a device busy, few enough that their float32 logits (1 GB for a vocabulary of 32,000, less if
        logits_chunk is set) fit in memory with the model.

    Raises:
      ValueError: if sizes do not fit each other, a number has no meaning or a choice is unknown.
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
    scoring_tokens: int = 8192

    def __post_init__(self):
        sizes = (
            "vocab_size", "dim", "layers", "heads", "kv_heads", "ffn_hidden", "max_length", "generation_rows",
            "scoring_tokens",
        )  # fmt: skip
        for name in sizes:
            _check_whole(f"model.{name}", getattr(self, name))
        for name in ("norm_eps", "rope_theta"):
            _check_positive(f"model.{name}", getattr(self, name))
            object.__setattr__(self, name, float(getattr(self, name)))  # JAX makes int32 of a whole number
        if not isinstance(self.logits_chunk, int) or self.logits_chunk < 0:
            raise ValueError(
                f"model.logits_chunk is {self.logits_chunk!r}; it must be a number of positions, or 0 for all at once."
            )
        if self.dim % self.heads:
            raise ValueError(
                f"model.dim={self.dim} cannot be split among model.heads={self.heads}: dim must be a multiple."
            )
        if self.heads % self.kv_heads:
            raise ValueError(
                f"model.heads={self.heads} cannot share model.kv_heads={self.kv_heads}: heads must be a multiple."
            )
        if self.head_dim % 2:
            raise ValueError(
                f"model.dim / model.heads = {self.head_dim} is odd; rotary positions need pairs: choose an even size."
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
        """The size of one attention head."""
        return self.dim // self.heads


def ffn_hidden(dim: int, multiple_of: int, multiplier: float | None = None) -> int:
    """Returns the feed-forward's width: two thirds of 4 dim, times the multiplier, rounded up (Meta's model code).

    Raises:
      ValueError: if they are not positive numbers; the message has the names of Meta's params.json.
    """
    _check_whole("dim", dim)
    _check_whole("multiple_of", multiple_of)
    hidden = int(2 * (4 * dim) / 3)
    if multiplier is not None:
        _check_positive("ffn_dim_multiplier", multiplier)
        hidden = int(multiplier * hidden)
    return multiple_of * math.ceil(hidden / multiple_of)


def _check_whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a whole number of at least 1.")


def _check_positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} is {value!r}; it must be a finite number above 0.")


def parameter_count(config: ModelConfig) -> int:
    """Returns the number of parameters of the language model, with its untied head."""
    attention = 2 * config.dim * config.dim + 2 * config.dim * config.kv_heads * config.head_dim
    feed_forward = 3 * config.dim * config.ffn_hidden
    norms = 2 * config.dim
    return config.layers * (attention + feed_forward + norms) + config.dim + 2 * config.vocab_size * config.dim


# 7b, 13b and 70b: sections 2.1 and 2.2 of the paper and the released params.json. 34b was never released: its sizes are
# Code Llama's. 1b has TinyLlama's shape. logits_chunk: a position's logits take 128 KB, several times what is kept of
# it in a layer (about 22 KB in small, 40 KB in 1b, 100 KB in 7b); an eighth or a sixteenth of the positions at once
# makes the logits the smaller part, and is enough for efficient products. generation_rows: the paper's sizes decode a
# whole batch of PPO together, 8 rows a chip on 64.
_7B = ModelConfig(
    vocab_size=32000, dim=4096, layers=32, heads=32, kv_heads=32, ffn_hidden=ffn_hidden(4096, 256), max_length=4096,
    compute_dtype="bfloat16", remat="dots", logits_chunk=256, generation_rows=512,
)  # fmt: skip
PRESETS: Mapping[str, ModelConfig] = types.MappingProxyType({
    "tiny": ModelConfig(
        vocab_size=1024, dim=128, layers=4, heads=4, kv_heads=2, ffn_hidden=ffn_hidden(128, 32), max_length=960,
        scan_layers=False,
    ),
    "small": dataclasses.replace(
        _7B, dim=768, layers=12, heads=12, kv_heads=4, ffn_hidden=ffn_hidden(768, 256), max_length=1024,
        remat="none", logits_chunk=128, generation_rows=128,
    ),
    "1b": dataclasses.replace(
        _7B, dim=2048, layers=22, heads=32, kv_heads=4, ffn_hidden=5632, max_length=2048,
        logits_chunk=128, generation_rows=128,
    ),
    "7b": _7B,
    "13b": dataclasses.replace(_7B, dim=5120, layers=40, heads=40, kv_heads=40, ffn_hidden=ffn_hidden(5120, 256)),
    "34b": dataclasses.replace(_7B, dim=8192, layers=48, heads=64, kv_heads=8, ffn_hidden=ffn_hidden(8192, 256)),
    "70b": dataclasses.replace(_7B, dim=8192, layers=80, heads=64, kv_heads=8, ffn_hidden=ffn_hidden(8192, 4096, 1.3)),
})  # fmt: skip
