"""The Llama 2 network in Flax Linen, with a vocabulary head (language model) or a scalar head (rewards, values).

Parameters, all float32, the layers stacked on axis 0 whether they are scanned or unrolled:

    trunk  embedding [vocab, dim]
           layers    attention_norm [layers, dim]
                     query [layers, dim, heads * head_dim]     key, value [layers, dim, kv_heads * head_dim]
                     output [layers, heads * head_dim, dim]
                     ffn_norm [layers, dim]
                     gate, up [layers, dim, ffn_hidden]        down [layers, ffn_hidden, dim]
           final_norm [dim]
    head   kernel [dim, vocab], or [dim, 1] for the scalar head

Matrices are applied from the right, y = x @ matrix; gate, down and up are w1, w2 and w3 of Meta's checkpoints.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from llama2_jax.models import decoding, residual_dropout
from llama2_jax.models.adapters import AdaptedMatrix, Weight, map_weight, matrix_shapes
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.kv_cache import KVCache
from llama2_jax.models.layer import EMBEDDING_AXES, LAYER_AXES, NORM_AXES, embed, layer, rms_norm
from llama2_jax.models.quantized import Quantization, QuantizedMatrix, quantize_layers
from llama2_jax.models.remat import POLICIES
from llama2_jax.models.rope import Rotation, rotation
from llama2_jax.models.weights import cast_and_gather
from llama2_jax.sharding.axes import RULES, Rules, constrain, partition_spec
from llama2_jax.sharding.mesh import data_parallel_size

Params = dict[str, Any]
Tokens = Int[Array, "rows length"]

# The papers do not state an initialisation. Ours is normal with this standard deviation (as GPT-2's), divided by
# sqrt(2 layers) for the two projections that write into the residual stream, so that its variance does not grow with
# depth.
INIT_STD = 0.02


class Layer(nn.Module):
    """One layer's parameters; the computation is in layer.py, so that decoding shares it."""

    config: ModelConfig
    mesh: Mesh | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "rows length dim"], rope: Rotation, segment_ids: Tokens
    ) -> tuple[Float[Array, "rows length dim"], None]:
        weights = {name: self._weight(name, *made) for name, made in _layer_parameters(self.config).items()}
        dropout = self.get_variable("params", residual_dropout.ENTRY)  # None but in trainings that have it
        return layer(weights, x, rope, segment_ids, self.config, self.mesh, dropout), None

    def _weight(self, name: str, init: nn.initializers.Initializer, shape: tuple[int, ...]) -> Weight:
        # Several arrays in the place of one, which `param` would compare with the one array that it initialises.
        stored = self.get_variable("params", name)
        if isinstance(stored, AdaptedMatrix | QuantizedMatrix):
            return stored
        return self.param(name, nn.with_logical_partitioning(init, LAYER_AXES[name]), shape)


def _layer_stack(config: ModelConfig) -> type[nn.Module]:
    """Returns a module of all layers in sequence: a scan, fully unrolled unless config.scan_layers."""
    layer_type = Layer
    if config.remat != "none":
        layer_type = nn.remat(Layer, prevent_cse=not config.scan_layers, policy=POLICIES[config.remat])
    return nn.scan(
        layer_type,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(nn.broadcast, nn.broadcast),
        length=config.layers,
        unroll=1 if config.scan_layers else config.layers,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )


def _layer_parameters(config: ModelConfig) -> dict[str, tuple[nn.initializers.Initializer, tuple]]:
    """Returns the initialiser and the shape of each parameter of a layer."""
    ones, normal = nn.initializers.ones, nn.initializers.normal(INIT_STD)
    residual = nn.initializers.normal(INIT_STD * (2 * config.layers) ** -0.5)
    dim, shapes = config.dim, matrix_shapes(config)
    # In this order: Linen draws one parameter after the other.
    return {
        "attention_norm": (ones, (dim,)),
        **{name: (normal, shapes[name]) for name in ("query", "key", "value")},
        "output": (residual, shapes["output"]),
        "ffn_norm": (ones, (dim,)),
        **{name: (normal, shapes[name]) for name in ("gate", "up")},
        "down": (residual, shapes["down"]),
    }


class Trunk(nn.Module):
    """The network without its head: embedding, layers and final norm."""

    config: ModelConfig
    mesh: Mesh | None = None

    @nn.compact
    def __call__(self, tokens: Tokens, positions: Tokens, segment_ids: Tokens) -> Float[Array, "rows length dim"]:
        config = self.config
        embedding_init = nn.with_logical_partitioning(nn.initializers.normal(INIT_STD), EMBEDDING_AXES)
        embedding = self.param("embedding", embedding_init, (config.vocab_size, config.dim))
        x = embed(embedding, tokens, self.mesh).astype(config.compute_dtype)
        rope = rotation(positions, config.head_dim, config.rope_theta)
        x, _ = _layer_stack(config)(config, self.mesh, name="layers")(x, rope, segment_ids)
        norm_init = nn.with_logical_partitioning(nn.initializers.ones, NORM_AXES)
        return rms_norm(x, self.param("final_norm", norm_init, (config.dim,)), config.norm_eps)


class Head(nn.Module):
    """A linear map from hidden states to float32 outputs, without bias."""

    outputs: int
    axis: str
    init_std: float
    mesh: Mesh | None = None

    @nn.compact
    def __call__(self, hidden: Float[Array, "*batch dim"]) -> Float[Array, "*batch outputs"]:
        dim = hidden.shape[-1]
        init = nn.with_logical_partitioning(nn.initializers.normal(self.init_std), ("embed", self.axis))
        kernel = self.param("kernel", init, (dim, self.outputs))
        kernel = cast_and_gather(kernel, hidden.dtype, self.mesh, ("embed", self.axis))
        flat = hidden.reshape(-1, dim)  # as in layer.py: faster gradients on the CPU
        out = jnp.matmul(flat, kernel, preferred_element_type=jnp.float32)
        return out.reshape(*hidden.shape[:-1], self.outputs)


def _scalar_head(config: ModelConfig, mesh: Mesh | None = None) -> Head:
    # The initialisation of InstructGPT's reward head: outputs of about unit size on normed states.
    return Head(1, "scalar", (config.dim + 1) ** -0.5, mesh)


class LanguageModel(nn.Module):
    """Llama 2 with its vocabulary head.

    Attributes:
      config: the network.
      mesh: if given, activations are pinned to it (sharding/axes.py); rows must be a multiple of data * fsdp.
    """

    config: ModelConfig
    mesh: Mesh | None = None

    def setup(self):
        self.trunk = Trunk(self.config, self.mesh)
        self.head = Head(self.config.vocab_size, "vocab", INIT_STD, self.mesh)

    def __call__(self, tokens: Tokens, positions: Tokens, segment_ids: Tokens) -> Float[Array, "rows length vocab"]:
        """Returns float32 logits: at each token, of the token that follows it."""
        return self.logits(self.hidden(tokens, positions, segment_ids))

    def hidden(self, tokens: Tokens, positions: Tokens, segment_ids: Tokens) -> Float[Array, "rows length dim"]:
        """Returns the states after the final norm, in the compute dtype; `logits` may be given only some of them."""
        return self.trunk(tokens, positions, segment_ids)

    def logits(self, hidden: Float[Array, "*batch dim"]) -> Float[Array, "*batch vocab"]:
        """Returns float32 logits of hidden states."""
        out = self.head(hidden)
        return constrain(out, self.mesh, ("batch", "length", "vocab")) if out.ndim == 3 else out

    def hidden_and_head(
        self, tokens: Tokens, positions: Tokens, segment_ids: Tokens
    ) -> tuple[Float[Array, "rows length dim"], Float[Array, "groups dim vocab"]]:
        """Returns the hidden states and the head's matrix, for logits in chunks (objectives/target_scores.py).

        The matrix is in the compute dtype, with one copy for each group of devices that shares rows. Its use needs
        these copies in any case; written so, it is gathered here and not in the loop over chunks.
        """
        hidden, groups = self.hidden(tokens, positions, segment_ids), data_parallel_size(self.mesh)
        matrix = self.head.variables["params"]["kernel"].astype(self.config.compute_dtype)
        matrix = constrain(matrix, self.mesh, (None, "vocab"))
        matrix = jnp.broadcast_to(matrix, (groups, *matrix.shape))
        return hidden, constrain(matrix, self.mesh, ("batch", None, "vocab"))

    def decode(
        self, tokens: Tokens, positions: Tokens, cache: KVCache
    ) -> tuple[Float[Array, "rows length vocab"], KVCache]:
        """Returns logits of tokens that follow those in the cache, and the extended cache; see models/decoding.py.

        Args:
          tokens: a prompt, or one token a row.
          positions: each token's position in its sequence, -1 for padding.
          cache: with at least `length` free slots.
        """
        # The weights are converted at every call, so consolidating them would not pay.
        config = dataclasses.replace(self.config, consolidate_weights=False)
        weights = decoding.decoding_weights(self.variables["params"], config, self.mesh)
        hidden, cache = decoding.decode(weights, tokens, positions, cache, config, self.mesh)
        return decoding.logits(weights, hidden), cache


class ScalarModel(nn.Module):
    """The same trunk with a scalar head: a float32 score at each token.

    A reward model is read at a sequence's last token, a critic at the token before each action.
    """

    config: ModelConfig
    mesh: Mesh | None = None

    def setup(self):
        self.trunk = Trunk(self.config, self.mesh)
        self.head = _scalar_head(self.config, self.mesh)

    def __call__(self, tokens: Tokens, positions: Tokens, segment_ids: Tokens) -> Float[Array, "rows length"]:
        """Returns the score at each token."""
        return self.head(self.trunk(tokens, positions, segment_ids))[..., 0]


def init_language_model(config: ModelConfig, key: jax.Array) -> Params:
    """Returns initial parameters of a LanguageModel, without Linen's boxes."""
    return nn.unbox(_init(LanguageModel(config), key))


def init_scalar_model(config: ModelConfig, key: jax.Array) -> Params:
    """Returns initial parameters of a ScalarModel, without Linen's boxes."""
    return nn.unbox(_init(ScalarModel(config), key))


def scalar_params_from(language_params: Params, config: ModelConfig, key: jax.Array) -> Params:
    """Returns a scalar model's parameters: a copy of a language model's trunk and a new head (section 3.2.2)."""
    head = nn.unbox(_scalar_head(config).init(key, jnp.zeros((1, config.dim))))["params"]
    return {"trunk": jax.tree.map(jnp.copy, language_params["trunk"]), "head": head}


def parameter_shardings(module: LanguageModel | ScalarModel, mesh: Mesh, rules: Rules = RULES) -> Params:
    """Returns the sharding of each parameter, by its logical axes and the rules; nothing is allocated."""
    return jax.tree.map(
        lambda names: NamedSharding(mesh, partition_spec(names, rules)),
        _logical_axes(module),
        is_leaf=lambda leaf: isinstance(leaf, PartitionSpec),
    )


def quantized_shapes(shapes: Params, how: Quantization | None, mesh: Mesh | None) -> Params:
    """Returns parameters in few bits as shapes, from those of all parameters, which have shardings.

    Args:
      shapes: as `abstract_params`, with shardings.
      how: None returns the shapes as they are.
      mesh: over which the matrices are split, as they would be as arrays; None for one device.
    """
    if how is None:
        return shapes
    layers = shapes["trunk"]["layers"]
    small = jax.eval_shape(functools.partial(quantize_layers, how=how), shapes)["trunk"]["layers"]

    def placed(leaf: jax.ShapeDtypeStruct, axes: Sequence[str | None]) -> jax.ShapeDtypeStruct:
        sharding = layers["query"].sharding if mesh is None else NamedSharding(mesh, partition_spec(("layers", *axes)))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    layers = {name: map_weight(placed, one, LAYER_AXES[name]) for name, one in small.items()}
    return {**shapes, "trunk": {**shapes["trunk"], "layers": layers}}


@functools.lru_cache
def _logical_axes(module: LanguageModel | ScalarModel) -> Params:
    """Returns the logical axes of each parameter; kept, since every model that is loaded asks for them."""
    return nn.get_partition_spec(jax.eval_shape(functools.partial(_init, module), jax.random.key(0)))


def _init(module: nn.Module, key: jax.Array) -> Params:
    """Returns the module's parameters in Linen's boxes, which carry the logical axes."""
    # One token is enough, but not every attention backend takes it.
    module = module.clone(config=dataclasses.replace(module.config, attention="xla"))
    tokens = jnp.zeros((1, 1), jnp.int32)
    return module.init(key, tokens, tokens, tokens)["params"]
