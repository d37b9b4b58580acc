"""What of a model a stage trains: all of it, or low-rank adapters while the rest is frozen (models/adapters.py).

A stage's settings have `adapters` = {"rank", "alpha", "targets", "dropout", "quantize"}; without them, or with rank 0,
all parameters are trained. A fine-tuning's have `residual_dropout` too (models/residual_dropout.py).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.models.adapters import (
    AdapterConfig,
    abstract_trained,
    adapt,
    frozen_layers,
    init_trained,
    trained_shardings,
)
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.heads import abstract_params
from llama2_jax.models.layer import LAYER_AXES
from llama2_jax.models.llama import Params
from llama2_jax.models.quantized import QuantizedMatrix, is_quantized
from llama2_jax.models.residual_dropout import with_residual_dropout
from llama2_jax.pipeline.runtime import Runtime, named_key
from llama2_jax.training.step import TrainStep


@dataclasses.dataclass(frozen=True)
class Trainable:
    """A model's parameters, divided into what is trained and what is not.

    Attributes:
      trained: what the optimizer changes: all parameters, or adapters (and a scalar model's head).
      frozen: the other parameters and the keys of what is dropped in training, an argument of the step; None if all
        parameters are trained and nothing is dropped.
      adapters: None if all parameters are trained.
    """

    trained: Params
    frozen: dict[str, Any] | None = None
    adapters: AdapterConfig | None = None

    def complete(self, trained: Params) -> Params:
        """Returns the model's parameters, with these trained ones."""
        return trained if self.adapters is None else adapt(self.frozen["params"], trained, self.adapters)

    def bind(self, step: TrainStep) -> TrainStep:
        """Returns the step of a state and a batch alone, with the frozen parameters as its argument."""
        return step if self.frozen is None else functools.partial(step, frozen=self.frozen)


def adapter_config(settings: ConfigDict) -> AdapterConfig | None:
    """Returns the adapters that a stage's settings ask for; None where all parameters are trained.

    Raises:
      ValueError: if a field is unknown, or has no meaning.
    """
    fields = dict(settings.get("adapters") or {})
    if unknown := sorted(fields.keys() - {field.name for field in dataclasses.fields(AdapterConfig)}):
        known = ", ".join(field.name for field in dataclasses.fields(AdapterConfig))
        raise ValueError(f"adapters has the unknown field {', '.join(unknown)}; wanted {known}")
    return AdapterConfig(**fields) if fields.get("rank", 0) != 0 else None


def residual_dropout(settings: ConfigDict) -> float:
    """Returns the residual dropout of the last layer; 0 in trainings whose settings have none."""
    return settings.get("residual_dropout", 0.0)


def divide(
    head: str,
    params: Params,
    adapters: AdapterConfig | None,
    key: jax.Array,
    runtime: Runtime,
    residual_dropout: float = 0.0,
) -> Trainable:
    """Divides a model's parameters, with fresh adapters under which it is the same model.

    Args:
      head: "language", or "scalar", whose own head is trained too.
      params: the model's; what is frozen of them is kept as `as_frozen` returns it.
      adapters: what is trained; None for everything.
      key: of the adapters' initial values and of what is dropped.
      runtime: the stage's.
      residual_dropout: of the last layer.

    Raises:
      ValueError: if all parameters are to be trained, and matrices are in few bits.
    """
    # Without dropout no key is an argument: programs are then the same for all stages.
    drop = {"residual_dropout_key": named_key(key, "residual dropout")} if residual_dropout else {}
    if adapters is None:
        if is_quantized(params):
            raise ValueError(
                f"{runtime.stage}: the start has its matrices in few bits, which cannot be trained: train adapters "
                "beside them (adapters.rank), or start from the model that it was made of"
            )
        return Trainable(params, drop or None)
    make = functools.partial(init_trained, runtime.model, head, adapters)
    places = trained_shardings(head, adapters, runtime.mesh, LAYER_AXES)
    trained = jax.jit(make, out_shardings=places)(named_key(key, "init"))
    frozen = dict(params)
    if head == "scalar":
        trained["head"] = jax.tree.map(jnp.copy, frozen.pop("head"))
    frozen = as_frozen(frozen, runtime.model, adapters)
    drop |= {"dropout_key": named_key(key, "dropout")} if adapters.dropout else {}
    return Trainable(trained, {"params": frozen, **drop}, adapters)


def as_frozen(params: Params, model: ModelConfig, adapters: AdapterConfig) -> Params:
    """Returns a model's parameters as they stand beside adapters; those that are so already are shared.

    They are in the compute dtype, in which every product reads them anyway, and the layers' matrices in few bits if the
    adapters' `quantize` says so. Where that is another form they are freed.
    """
    small = frozen_layers(params, adapters)
    for name, matrix in params["trunk"]["layers"].items():
        if small["trunk"]["layers"][name] is not matrix:
            matrix.delete()
    return in_compute_dtype(small, model)


def in_compute_dtype(params: Params, model: ModelConfig) -> Params:
    """Returns a model's parameters in the compute dtype, for one that is applied and not trained; frees the others.

    Every use casts them to it, so results are the same. Matrices in few bits stay as they are.
    """

    def converted(leaf: jax.Array | QuantizedMatrix) -> jax.Array | QuantizedMatrix:
        if isinstance(leaf, QuantizedMatrix) or leaf.dtype == jnp.dtype(model.compute_dtype):
            return leaf
        array = leaf.astype(model.compute_dtype)
        leaf.delete()
        return array

    return jax.tree.map(converted, params, is_leaf=lambda one: isinstance(one, QuantizedMatrix))


def completion(adapters: AdapterConfig | None, residual_dropout: float = 0.0) -> Callable | None:
    """Returns what `build_train_step` makes a model's parameters with; None where the trained ones are all it needs."""

    def complete(trained: Params, frozen: dict[str, Any], draw: jax.Array) -> Params:
        keys = {name: jax.random.fold_in(key, draw) for name, key in frozen.items() if name != "params"}
        params = trained
        if adapters is not None:
            params = adapt(frozen["params"], trained, adapters, keys.get("dropout_key"))
        if residual_dropout:
            params = with_residual_dropout(params, residual_dropout, keys["residual_dropout_key"])
        return params

    return complete if adapters is not None or residual_dropout else None


def step_shardings(head: str, adapters: AdapterConfig | None, mesh: Mesh, whole: Params) -> Params:
    """Returns the sharding of each trained parameter; `whole` has those of all parameters."""
    return whole if adapters is None else trained_shardings(head, adapters, mesh, LAYER_AXES)


def parameter_counts(head: str, adapters: AdapterConfig | None, model: ModelConfig) -> dict[str, int]:
    """Returns for a stage's results how many parameters its adapters train, and of how many; nothing without them."""
    if adapters is None:
        return {}
    trees = {"parameters": abstract_params(model, head), "trained_parameters": abstract_trained(model, head, adapters)}
    return {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in trees.items()}
