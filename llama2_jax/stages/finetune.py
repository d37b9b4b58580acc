"""Supervised fine-tuning (section 3.1): dialogues packed to the context length, loss on answers only.

The dialogues are demonstrations and what models answered in other stages: the best samples of a larger model, say
(section 3.2.3).
"""

import math
from collections.abc import Mapping

from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.device_programs import held_out_loss, language_model_training
from llama2_jax.pipeline.encoding import load_tokenizer, read_sources, source_weights, unweighted
from llama2_jax.pipeline.finetuning import (
    check_kept_epochs,
    encode_rows,
    finetune,
    longest_part,
    read_demonstrations,
    read_rows,
)
from llama2_jax.pipeline.model_training import check_schedule, most_steps
from llama2_jax.pipeline.runtime import Inputs, Runtime
from llama2_jax.pipeline.safety_data import with_safety_fraction
from llama2_jax.sizing.programs import DeviceWork


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Fine-tunes the starting model on the sources' dialogues and on those of other stages.

    The inputs `bags`, `samples` and `dialogues`, which may be absent, are the stages that wrote bag.jsonl,
    samples.jsonl and dialogues.jsonl.
    The loss on `held_out` is logged as the run goes: only for sources of the same name, so that replacing the
    sources needs no held-out ones. With a `safety_fraction` that part of the safety data is trained on, and the
    results have its size, `safety_data` (pipeline/safety_data.py).
    """
    tokenizer = load_tokenizer(inputs)
    rows = {
        **read_sources(config.sources, runtime, "dialogues"),
        **read_rows(inputs.get("bags", ()), "bag.jsonl"),
        **read_rows(inputs.get("samples", ()), "samples.jsonl"),
        **read_rows(inputs.get("dialogues", ()), "dialogues.jsonl"),
    }
    counts = {}
    if "safety_fraction" in config:
        rows, counts["safety_data"] = with_safety_fraction(rows, config.safety_fraction, runtime.experiment_seed)
    results = finetune(
        config.finetune,
        inputs["start"],
        encode_rows(rows, tokenizer, longest_part(config.finetune)),
        tokenizer.bos_id,
        runtime,
        weights=source_weights(config.sources),
        held_out=read_demonstrations(unweighted(_held_out(config), runtime), tokenizer, runtime),
    )
    return {**counts, **results}


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if the training's settings cannot work out, or no source is seen in it."""
    settings = config.finetune
    check_kept_epochs(settings)
    # Dialogues share rows, so there are no more rows than dialogues. What other stages sampled is not known yet.
    weights = {name: weight for name, weight in source_weights(config.sources).items() if weight}
    dialogues = sum(weight * count({name: config.sources[name]}) for name, weight in weights.items())
    sampled = math.inf if any(inputs.get(name) for name in ("bags", "samples", "dialogues")) else 0
    if not weights and not sampled:
        names = ", ".join(sorted(config.sources)) or "none"
        raise ValueError(f"nothing to train on: of the sources ({names}) none has a weight above 0")
    if longest_part(settings) is not None:
        dialogues = math.inf  # a dialogue may be split into any number
    check_schedule(settings, most_steps(dialogues + sampled, settings.batch_size, settings.epochs), settings.batch_size)


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """The training step on packed dialogues, and the loss on held-out ones."""
    held_out = (held_out_loss(config.finetune, model, mesh),) if _held_out(config) else ()
    return DeviceWork((language_model_training(config.finetune, model, mesh), *held_out), unit="step")


def _held_out(config: ConfigDict) -> ConfigDict:
    return ConfigDict({name: source for name, source in config.held_out.items() if name in config.sources})
