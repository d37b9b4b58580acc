"""Pretraining (section 2): next-token prediction on a mixture of sources, packed to the context length."""

import functools
import itertools

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.pretraining import pretraining_batches
from llama2_jax.data.sources import read_all
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import LanguageModel, init_language_model, parameter_shardings
from llama2_jax.pipeline.device_programs import DeviceWork, held_out_loss, language_model_training
from llama2_jax.pipeline.model_training import fit_language_model, language_model_loss, shard_batch
from llama2_jax.pipeline.runtime import Inputs, Runtime, named_key
from llama2_jax.text.tokenizer import Tokenizer
from llama2_jax.training.model_folder import load_model


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Trains the base model, from the model in the folder `start` where there is such an input.

    Reports its loss on held-out text in nats a token.
    """
    tokenizer = Tokenizer.load(inputs["tokenizer"] / "tokenizer.model")
    documents = {
        name: tokenizer.encode_many([record["text"] for record in records])
        for name, records in read_all(config.sources, root=runtime.data_root, seed=runtime.experiment_seed).items()
    }
    training, held_out = _hold_out(documents)
    weights = {name: source.get("weight", 1.0) for name, source in config.sources.items()}

    def batches(documents: dict, seed: int):
        return pretraining_batches(
            documents, weights, config.length, config.batch_size, seed,
            bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id,
        )  # fmt: skip

    test = list(itertools.islice(iter(batches(held_out, runtime.seed + 1)), config.held_out_batches))

    def evaluate(params: dict) -> dict[str, float]:
        loss = language_model_loss(runtime.model, runtime.mesh)
        losses = [loss(params, shard_batch(batch, runtime.mesh)) for batch in test]
        return {"held_out_loss": float(np.mean([float(loss) for loss in losses]))}

    params = _initial(inputs, runtime)
    before = {f"start_{name}": value for name, value in evaluate(params).items()} if "start" in inputs else {}
    params = fit_language_model(config, params, iter(batches(training, runtime.seed)), config.steps, runtime)
    return {
        **before,
        **evaluate(params),
        "documents": {name: len(texts) for name, texts in documents.items()},
        "tokens_in_sources": {name: int(sum(map(len, texts))) for name, texts in documents.items()},
        "tokens_trained_on": config.steps * config.batch_size * config.length,
        "parameters": int(sum(leaf.size for leaf in jax.tree.leaves(params))),
    }


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """The training step, and the loss on held-out text."""
    return DeviceWork((language_model_training(config, model, mesh), held_out_loss(config, model, mesh)), unit="step")


def _initial(inputs: Inputs, runtime: Runtime) -> dict:
    if "start" in inputs:
        return load_model(inputs["start"], runtime.mesh).params
    shardings = parameter_shardings(LanguageModel(runtime.model), runtime.mesh)
    initialise = jax.jit(functools.partial(init_language_model, runtime.model), out_shardings=shardings)
    return initialise(named_key(runtime.key, "init"))


def _hold_out(documents: dict[str, list], share: float = 0.01) -> tuple[dict, dict]:
    """The last one in a hundred documents of each source (at least one) is kept for measuring."""
    border = {name: len(texts) - max(1, int(len(texts) * share)) for name, texts in documents.items()}
    for name, kept in border.items():
        if kept < 1:
            raise ValueError(f"source {name!r} has {len(documents[name])} document; at least 2 are needed")
    training = {name: texts[: border[name]] for name, texts in documents.items()}
    return training, {name: texts[border[name] :] for name, texts in documents.items()}
