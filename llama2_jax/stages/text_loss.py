"""What versions still know of pretraining: their loss on the text that pretraining held out, in nats a token.

Alignment costs some of it, which text beside PPO's answers is to keep (InstructGPT, section 3.5).
"""

import itertools
from collections.abc import Mapping

from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.data.pretraining import hold_out, pretraining_batches
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.device_programs import abstract_model, batch_loss
from llama2_jax.pipeline.encoding import load_tokenizer, read_sources, source_weights
from llama2_jax.pipeline.model_training import held_out_loss
from llama2_jax.pipeline.resumable import map_resumable
from llama2_jax.pipeline.runtime import Inputs, Runtime
from llama2_jax.sizing.programs import DeviceWork
from llama2_jax.training.model_folder import load_model


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Measures the loss of each version, the input `models`, on the same batches of held-out text."""
    tokenizer = load_tokenizer(inputs)
    _, records = hold_out(read_sources(config.sources, runtime, "text"))
    documents = {name: tokenizer.encode_many([one["text"] for one in texts]) for name, texts in records.items()}
    # Optional sources may be absent.
    weights = {name: weight for name, weight in source_weights(config.sources).items() if name in documents}
    batches = pretraining_batches(
        documents, weights, config.length, config.batch_size, runtime.seed,
        bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id,
    )  # fmt: skip
    evaluate = held_out_loss(list(itertools.islice(iter(batches), config.held_out_batches)), runtime)
    folders = list(zip(config.versions, inputs["models"], strict=True))

    def measure(first: int, _: int) -> list[dict]:
        version, folder = folders[first]
        return [{"version": version, **evaluate(load_model(folder, runtime.mesh, "language").params)}]

    return {"text_loss": map_resumable("versions", len(folders), measure, runtime, size=1)}


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if there is no text to measure on."""
    del inputs, count
    if config.held_out_batches < 1 or not config.sources:
        raise ValueError(f"held_out_batches={config.held_out_batches}: wanted at least 1, and sources of text")


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """The loss of a batch, by one version after the other."""
    return DeviceWork((batch_loss(abstract_model("version", model, mesh), config, model, mesh),))
