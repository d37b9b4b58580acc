"""Pretraining (section 2): next-token prediction on a mixture of sources, packed to the context length."""

import functools
import itertools
from collections.abc import Mapping

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.data.pretraining import hold_out, pretraining_batches
from llama2_jax.models.config import ModelConfig, parameter_count
from llama2_jax.models.heads import build_model, init_model
from llama2_jax.models.llama import Params, parameter_shardings
from llama2_jax.pipeline import device_programs
from llama2_jax.pipeline.encoding import load_tokenizer, read_sources, source_weights
from llama2_jax.pipeline.model_training import check_schedule, fit_language_model, held_out_loss
from llama2_jax.pipeline.runtime import Inputs, Runtime, named_key
from llama2_jax.pipeline.trainable import adapter_config, parameter_counts
from llama2_jax.sizing.programs import DeviceWork
from llama2_jax.training.model_folder import load_model


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Trains the base model, from the model in the folder `start` if there is such an input.

    Reports its loss on held-out text in nats a token.
    """
    tokenizer = load_tokenizer(inputs)
    documents = {
        name: tokenizer.encode_many([record["text"] for record in records])
        for name, records in read_sources(config.sources, runtime, "text").items()
    }
    training, held_out = hold_out(documents)
    # Optional sources may be absent.
    weights = {name: weight for name, weight in source_weights(config.sources).items() if name in documents}

    def batches(documents: dict, seed: int):
        return pretraining_batches(
            documents, weights, config.length, config.batch_size, seed,
            bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id,
        )  # fmt: skip

    test = itertools.islice(iter(batches(held_out, runtime.seed + 1)), config.held_out_batches)
    evaluate = held_out_loss(list(test), runtime)
    params = _initial(inputs, runtime)
    before = {f"start_{name}": value for name, value in evaluate(params).items()} if "start" in inputs else {}
    taken = iter(batches(training, runtime.seed))
    params = fit_language_model(config, params, taken, config.steps, runtime, evaluate, base=inputs.get("start"))
    return {
        **before,
        **evaluate(params),
        "documents": {name: len(texts) for name, texts in documents.items()},
        "tokens_in_sources": {name: int(sum(map(len, texts))) for name, texts in documents.items()},
        "tokens_trained_on": config.steps * config.batch_size * config.length,
        "parameters": parameter_count(runtime.model),
        **parameter_counts("language", adapter_config(config), runtime.model),
    }


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if the training's settings cannot work out, or a source has no share in the mixture."""
    del count
    if adapter_config(config) is not None and "start" not in inputs:
        raise ValueError(f"adapters.rank={config.adapters.rank}: there is no model to adapt; wanted an input `start`")
    if absent := sorted(name for name, weight in source_weights(config.sources).items() if not weight):
        raise ValueError(f"sources: the weight of {', '.join(absent)} is 0; wanted more, or leave the source out")
    check_schedule(config, config.steps, config.batch_size)


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """The training step, and the loss on held-out text."""
    programs = (
        device_programs.language_model_training(config, model, mesh),
        device_programs.held_out_loss(config, model, mesh),
    )
    return DeviceWork(programs, unit="step")


def _initial(inputs: Inputs, runtime: Runtime) -> Params:
    if "start" in inputs:
        return load_model(inputs["start"], runtime.mesh, "language").params
    shardings = parameter_shardings(build_model(runtime.model), runtime.mesh)
    initialise = jax.jit(functools.partial(init_model, runtime.model, "language"), out_shardings=shardings)
    return initialise(named_key(runtime.key, "init"))
