"""A release of a model with its matrices in 8 or 4 bits (models/quantized.py), as GPT4All's of its LoRA model.

The folder has the matrices so, and is read by all that applies a model: chat, evaluation, scores, sampling.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.quantized import QuantizedMatrix, plain, quantization, quantize_layers
from llama2_jax.pipeline.runtime import Inputs, Runtime
from llama2_jax.sizing.programs import DeviceWork
from llama2_jax.training.checkpoints import Checkpoints
from llama2_jax.training.model_folder import load_model, save_model_description
from llama2_jax.training.state import TrainState


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Writes the input `model` in the form `quantize`, "int8" or "int4".

    The results have the bytes of all parameters before and after, and for each kind of matrix the root mean square of
    its error over that of its weights.
    """
    model = load_model(inputs["model"], runtime.mesh)
    small = quantize_layers(model.params, quantization(config.quantize))
    save_model_description(runtime.folder, model.config, model.head, quantized=config.quantize)
    with Checkpoints(runtime.folder / "checkpoints") as checkpoints:
        # Nothing is trained: a state without moments, which Orbax would refuse to be empty.
        checkpoints.save(0, TrainState(jnp.zeros((), jnp.int32), small, {"none": jnp.zeros((), jnp.int32)}))
    before, after = model.params["trunk"]["layers"], small["trunk"]["layers"]
    return {
        "quantized": config.quantize,
        "bytes_before": _bytes(model.params),
        "bytes": _bytes(small),
        "relative_error": {
            name: _relative_error(before[name], one) for name, one in after.items() if isinstance(one, QuantizedMatrix)
        },
    }


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if the form is unknown."""
    del inputs, count
    if quantization(config.quantize) is None:
        raise ValueError('quantize="": choose int8 or int4')


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """Nothing to speak of: each matrix is read once."""
    del config, model, mesh
    return DeviceWork((), assumptions=("the model and what it becomes are on the devices together",))


def _bytes(params: dict) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(params))


def _relative_error(before: jax.Array, after: QuantizedMatrix) -> float:
    return float(np.sqrt(jnp.mean((plain(after) - before) ** 2) / jnp.mean(before**2)))
