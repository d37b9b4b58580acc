"""Models by the name of their head: "language" (over the vocabulary) or "scalar" (rewards and values)."""

import functools
from types import MappingProxyType

import jax
from jax.sharding import Mesh

from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import LanguageModel, Params, ScalarModel, init_language_model, init_scalar_model

HEADS = MappingProxyType({"language": (LanguageModel, init_language_model), "scalar": (ScalarModel, init_scalar_model)})


def build_model(config: ModelConfig, head: str = "language", mesh: Mesh | None = None) -> LanguageModel | ScalarModel:
    """Returns the module with this head, its activations pinned to the mesh if that has more than one device."""
    module, _ = HEADS[head]
    return module(config, mesh if mesh is not None and mesh.size > 1 else None)


def init_model(config: ModelConfig, head: str, key: jax.Array) -> Params:
    """Returns fresh parameters, without Linen's boxes."""
    _, init = HEADS[head]
    return init(config, key)


@functools.lru_cache
def abstract_params(config: ModelConfig, head: str) -> Params:
    """Returns each parameter's shape and dtype; nothing is allocated."""
    return jax.eval_shape(functools.partial(init_model, config, head), jax.eval_shape(lambda: jax.random.key(0)))
