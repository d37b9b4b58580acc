"""Supervised fine-tuning (section 3.1): dialogues packed to the context length, loss on answers only."""

from collections.abc import Mapping, Sequence

from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.dialogues import dialogue_batches, fit_to_length
from llama2_jax.data.epochs import steps_in
from llama2_jax.data.sources import read_all
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.device_programs import DeviceWork, language_model_training
from llama2_jax.pipeline.model_training import fit_language_model
from llama2_jax.pipeline.runtime import Inputs, Runtime
from llama2_jax.text.dialogue import EncodedDialogue, encode_dialogue
from llama2_jax.text.tokenizer import Tokenizer
from llama2_jax.training.model_folder import load_model


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Fine-tunes the starting model on the sources' dialogues."""
    tokenizer = Tokenizer.load(inputs["tokenizer"] / "tokenizer.model")
    dialogues = read_demonstrations(config.sources, tokenizer, runtime)
    return finetune(config.finetune, inputs["start"], dialogues, tokenizer.bos_id, runtime)


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """The training step on packed dialogues."""
    return DeviceWork((language_model_training(config.finetune, model, mesh),), unit="step")


def read_demonstrations(
    sources: ConfigDict, tokenizer: Tokenizer, runtime: Runtime
) -> dict[str, list[EncodedDialogue]]:
    """Reads and encodes the sources' dialogues, the loss on every answer."""
    return {
        name: [encode_dialogue(tokenizer, record["messages"], record.get("loss", "answers")) for record in records]
        for name, records in read_all(sources, root=runtime.data_root, seed=runtime.experiment_seed).items()
    }


def finetune(
    settings: ConfigDict,
    start: epath.Path,
    dialogues: Mapping[str, Sequence[EncodedDialogue]],
    bos_id: int,
    runtime: Runtime,
) -> dict:
    """Fine-tunes a model on encoded dialogues, leaves it in the runtime's folder and returns the results.

    Args:
      settings: batch_size (rows), length, epochs, too_long, and the optimization (experiments.sft.finetuning_schedule).
      start: the folder of the model to start from.
      dialogues: for each source its dialogues, all used once an epoch.
      bos_id: the tokenizer's.
      runtime: the stage's.
    """
    kept, too_long = {}, {}
    for name, encoded in dialogues.items():
        kept[name], too_long[name] = fit_to_length(encoded, settings.length, settings.too_long, name, bos_id)
    batches = dialogue_batches(kept, settings.length, settings.batch_size, settings.epochs, runtime.seed)
    steps = steps_in(batches)
    fit_language_model(settings, load_model(start, runtime.mesh).params, iter(batches), steps, runtime)
    return {
        "dialogues": {name: len(encoded) for name, encoded in kept.items()},
        "too_long": too_long,
        "steps": steps,
        "answer_tokens": int(sum(dialogue.loss_mask.sum() for encoded in kept.values() for dialogue in encoded)),
    }
