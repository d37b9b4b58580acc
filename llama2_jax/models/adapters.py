"""Low-rank adapters, LoRA (Hu et al. 2021, arXiv 2106.09685): a frozen matrix W is used as W + (alpha / rank) A B.

An adapted model's parameters are those of models/llama.py with an `AdaptedMatrix` in the place of some of the layers'
matrices: whatever applies a model applies an adapted one, x W + (alpha / rank) (x A) B, without forming the sum. What
is trained is a tree of its own, with the layers stacked on axis 0:

    trunk  layers  <target>  a [layers, inputs, rank], b [layers, rank, outputs]
    head   kernel [dim, 1]: of a scalar model, whose head is new and is trained as a whole
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float

from llama2_jax.models.config import ModelConfig
from llama2_jax.models.quantized import QuantizedMatrix, plain, quantization, quantize_layers
from llama2_jax.sharding.axes import RULES, Rules, partition_spec

Params = dict
Axes = Sequence[str | None]

# The matrices of a layer that can be adapted.
TARGETS = ("query", "key", "value", "output", "gate", "up", "down")


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """Which matrices get an adapter, and of what size. Frozen and hashable: a static argument of compiled programs.

    Attributes:
      rank: of the trained product A B.
      alpha: the product is multiplied by alpha / rank, so that a learning rate suits several ranks (section 4.1).
      targets: names of the layers' matrices, from `TARGETS`.
      dropout: the part of the inputs of A that is dropped in training.
      quantize: how the frozen layers are stored, "int8" or "int4" (QLoRA, models/quantized.py), or "" for as they are.

    Raises:
      ValueError: if a number is not in its range, or a target is unknown.
    """

    rank: int
    alpha: float = 16.0
    targets: tuple[str, ...] = TARGETS
    dropout: float = 0.0
    quantize: str = ""

    def __post_init__(self):
        object.__setattr__(self, "targets", tuple(self.targets))
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"adapters.rank is {self.rank!r}; it must be a whole number of at least 1.")
        for name, wanted, holds in (
            ("alpha", "above 0", lambda value: 0 < value < math.inf),
            ("dropout", "from 0 to below 1", lambda value: 0 <= value < 1),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not holds(value):
                raise ValueError(f"adapters.{name} is {value!r}; it must be a number {wanted}.")
            object.__setattr__(self, name, float(value))
        quantization(self.quantize)
        unknown = [name for name in self.targets if name not in TARGETS]
        if unknown or not self.targets or len(set(self.targets)) < len(self.targets):
            raise ValueError(
                f"adapters.targets is {self.targets!r}; it must be one or more of {', '.join(TARGETS)}, each once."
            )

    @property
    def scale(self) -> float:
        """What the product A B is multiplied by."""
        return self.alpha / self.rank


@flax.struct.dataclass
class AdaptedMatrix:
    """A matrix W with its adapter, in the place of W: of one layer, or of all layers stacked on axis 0.

    Attributes:
      base: W, frozen, perhaps in few bits.
      a, b: the adapter's factors.
      dropout_key: what is dropped depends on it, one key a layer; None drops nothing.
      scale, dropout: of the AdapterConfig.
    """

    base: Float[Array, "*layers inputs outputs"] | QuantizedMatrix
    a: Float[Array, "*layers inputs rank"]
    b: Float[Array, "*layers rank outputs"]
    dropout_key: Array | None = None
    scale: float = flax.struct.field(pytree_node=False, default=1.0)
    dropout: float = flax.struct.field(pytree_node=False, default=0.0)

    def adapter_inputs(self, x: Float[Array, "... inputs"]) -> Float[Array, "... inputs"]:
        """Returns what A is applied to: x, of which in training a part is dropped and the rest scaled up for it."""
        if self.dropout_key is None:
            return x
        kept = jax.random.bernoulli(self.dropout_key, 1 - self.dropout, x.shape)
        return jnp.where(kept, x / (1 - self.dropout), 0).astype(x.dtype)


Weight = Float[Array, "..."] | QuantizedMatrix | AdaptedMatrix


def map_weight(function: Callable[[Array, Axes], Array], weight: Weight, axes: Axes) -> Weight:
    """Applies `function(array, logical axes)` to a weight, or to each array of one that consists of several."""
    if not isinstance(weight, QuantizedMatrix | AdaptedMatrix):
        return function(weight, axes)
    *outer, inputs, outputs = axes
    if isinstance(weight, QuantizedMatrix):
        values, scales = function(weight.values, axes), function(weight.scales, (*outer, None, outputs))
        return weight.replace(values=values, scales=scales)
    a, b = function(weight.a, (*outer, inputs, "rank")), function(weight.b, (*outer, "rank", outputs))
    return weight.replace(base=map_weight(function, weight.base, axes), a=a, b=b)


def init_trained(config: ModelConfig, head: str, adapters: AdapterConfig, key: jax.Array) -> Params:
    """Returns fresh adapters, float32: A uniform in +-1 / sqrt(inputs), B zero, so that the model is its base (4.1).

    A scalar model's tree has a place for its head, zero: the head is the model's own.

    Args:
      config, head: of the model.
      adapters: which matrices, and of what rank.
      key: a target's A depends on it and on the target's place in `TARGETS`.
    """
    shapes = matrix_shapes(config)

    def factors(name: str) -> dict[str, Float[Array, "layers ..."]]:
        inputs, outputs = shapes[name]
        bound, own = inputs**-0.5, jax.random.fold_in(key, TARGETS.index(name))
        a = jax.random.uniform(own, (config.layers, inputs, adapters.rank), minval=-bound, maxval=bound)
        return {"a": a, "b": jnp.zeros((config.layers, adapters.rank, outputs))}

    trained = {"trunk": {"layers": {name: factors(name) for name in adapters.targets}}}
    return trained | ({"head": {"kernel": jnp.zeros((config.dim, 1))}} if head == "scalar" else {})


@functools.lru_cache
def abstract_trained(config: ModelConfig, head: str, adapters: AdapterConfig) -> Params:
    """Returns the shape and dtype of each array of `init_trained`; nothing is allocated."""
    init = functools.partial(init_trained, config, head, adapters)
    return jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)))


def trained_shardings(
    head: str, adapters: AdapterConfig, mesh: Mesh, axes: Mapping[str, Axes], rules: Rules = RULES
) -> Params:
    """Returns the sharding of each array of `init_trained`: a factor is split as that side of its matrix.

    Args:
      head, adapters: as for `init_trained`.
      mesh: the devices.
      axes: the logical axes of each of a layer's weights (models/layer.py).
      rules: from logical axes to those of the mesh.
    """

    def sharding(*names: str | None) -> NamedSharding:
        return NamedSharding(mesh, partition_spec(names, rules))

    def factors(inputs: str, outputs: str) -> dict[str, NamedSharding]:
        return {"a": sharding("layers", inputs, "rank"), "b": sharding("layers", "rank", outputs)}

    trained = {"trunk": {"layers": {name: factors(*axes[name]) for name in adapters.targets}}}
    return trained | ({"head": {"kernel": sharding("embed", "scalar")}} if head == "scalar" else {})


def adapt(frozen: Params, trained: Params, adapters: AdapterConfig, dropout_key: jax.Array | None = None) -> Params:
    """Returns an adapted model's parameters: the base's, some of its matrices with an adapter.

    Args:
      frozen: the base's parameters; of a scalar model the trunk is enough.
      trained: as `init_trained` returns it.
      adapters: what it was made with.
      dropout_key: in training, what is dropped depends on it; without it nothing is dropped.
    """
    factors = trained["trunk"]["layers"]

    def adapted(name: str, base: Weight) -> Weight:
        if name not in factors:
            return base
        keys = None
        if dropout_key is not None and adapters.dropout:
            layers = factors[name]["a"].shape[0]
            keys = jax.random.split(jax.random.fold_in(dropout_key, TARGETS.index(name)), layers)
        return AdaptedMatrix(base, **factors[name], dropout_key=keys, scale=adapters.scale, dropout=adapters.dropout)

    layers = {name: adapted(name, base) for name, base in frozen["trunk"]["layers"].items()}
    head = trained["head"] if "head" in trained else frozen["head"]
    return {"trunk": {**frozen["trunk"], "layers": layers}, "head": head}


def separate(params: Params) -> tuple[Params, Params]:
    """Returns of an adapted model's parameters what is trained and what is frozen: `adapt` reversed."""
    trunk = params["trunk"]
    adapted = {name: one for name, one in trunk["layers"].items() if isinstance(one, AdaptedMatrix)}
    trained = {"trunk": {"layers": {name: {"a": one.a, "b": one.b} for name, one in adapted.items()}}}
    layers = {**trunk["layers"], **{name: one.base for name, one in adapted.items()}}
    head = {"head": params["head"]}
    is_scalar = params["head"]["kernel"].shape[-1] == 1
    return trained | (head if is_scalar else {}), {"trunk": {**trunk, "layers": layers}} | ({} if is_scalar else head)


def is_adapted(params: Params) -> bool:
    """Whether some of a model's matrices have adapters."""
    return any(isinstance(one, AdaptedMatrix) for one in params["trunk"]["layers"].values())


def merge(params: Params) -> Params:
    """Returns a plain model's parameters: each adapted matrix as `merged`, others in few bits restored."""
    return jax.tree.map(
        lambda leaf: merged(leaf) if isinstance(leaf, AdaptedMatrix) else plain(leaf),
        params,
        is_leaf=lambda leaf: isinstance(leaf, AdaptedMatrix | QuantizedMatrix),
    )


def frozen_layers(params: Params, adapters: AdapterConfig) -> Params:
    """Returns parameters, a model's or its trunk's, as they stand beside adapters: perhaps in few bits."""
    return quantize_layers(params, quantization(adapters.quantize))


@jax.jit
def merged(matrix: AdaptedMatrix) -> Float[Array, "*layers inputs outputs"]:
    """Returns W + (alpha / rank) A B, summed in float32, in W's dtype; in float32 where W is in few bits."""
    product = jnp.matmul(matrix.a, matrix.b, precision="highest", preferred_element_type=jnp.float32)
    base = plain(matrix.base)
    return (base + matrix.scale * product).astype(base.dtype)


def matrix_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Returns inputs and outputs of each matrix of a layer."""
    dim, kv_dim, hidden = config.dim, config.kv_heads * config.head_dim, config.ffn_hidden
    return {
        "query": (dim, dim),
        "key": (dim, kv_dim),
        "value": (dim, kv_dim),
        "output": (dim, dim),
        "gate": (dim, hidden),
        "up": (dim, hidden),
        "down": (hidden, dim),
    }
