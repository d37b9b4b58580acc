"""Fine-tuning on packed dialogues (section 3.1), after annotation and after rejection sampling alike."""

import itertools
from collections.abc import Mapping, Sequence

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from llama2_jax.data.dialogues import dialogue_batches, fit_to_length
from llama2_jax.data.epochs import steps_in
from llama2_jax.pipeline.encoding import encode_row, read_sources
from llama2_jax.pipeline.model_training import fit_language_model, held_out_loss
from llama2_jax.pipeline.runtime import Runtime
from llama2_jax.pipeline.stage_files import as_folders, read_jsonl
from llama2_jax.pipeline.trainable import adapter_config, parameter_counts
from llama2_jax.text.dialogue import EncodedDialogue, encode_dialogue
from llama2_jax.text.tokenizer import Tokenizer
from llama2_jax.training.model_folder import load_model

Dialogues = Mapping[str, Sequence[EncodedDialogue]]


def read_demonstrations(
    sources: ConfigDict, tokenizer: Tokenizer, runtime: Runtime
) -> dict[str, list[EncodedDialogue]]:
    """Reads and encodes the sources' dialogues, the loss on every answer."""
    return {
        name: [encode_dialogue(tokenizer, record["messages"], record.get("loss", "answers")) for record in records]
        for name, records in read_sources(sources, runtime, "dialogues").items()
    }


def read_sampled(
    folders: epath.Path | Sequence[epath.Path], name: str, tokenizer: Tokenizer
) -> dict[str, list[EncodedDialogue]]:
    """Reads and encodes what models answered: the rows of a JSONL file of one name, by the stage that wrote it."""
    return encode_rows(read_rows(folders, name), tokenizer)


def read_rows(folders: epath.Path | Sequence[epath.Path], name: str) -> dict[str, list[dict]]:
    """Reads the rows of a JSONL file of one name, by the stage that wrote it."""
    return {folder.name: read_jsonl(folder / name) for folder in as_folders(folders)}


def encode_rows(rows: Mapping[str, Sequence[dict]], tokenizer: Tokenizer) -> dict[str, list[EncodedDialogue]]:
    """Encodes the rows of each source; see `encode_row`."""
    return {name: [encode_row(tokenizer, row) for row in of_source] for name, of_source in rows.items()}


def finetune(
    settings: ConfigDict,
    start: epath.Path,
    dialogues: Dialogues,
    bos_id: int,
    runtime: Runtime,
    *,
    weights: Mapping[str, float] | None = None,
    held_out: Dialogues | None = None,
) -> dict:
    """Fine-tunes a model on encoded dialogues, leaves it in the runtime's folder and returns the results.

    Args:
      settings: batch_size (rows), length, epochs, too_long, and the optimization
        (experiments/parts/training.py, `finetuning_schedule`).
      start: the folder of the model to start from.
      dialogues: for each source its dialogues, all used once an epoch.
      bos_id: the tokenizer's.
      runtime: the stage's.
      weights: for each source how often its dialogues are seen in an epoch; 1 by default.
      held_out: for each source dialogues that are not trained on (any that are after all are dropped); the loss
        on the first settings.held_out_batches batches of them is logged every settings.evaluate_every steps.
    """
    kept, too_long = {}, {}
    for name, encoded in dialogues.items():
        kept[name], too_long[name] = fit_to_length(encoded, settings.length, settings.too_long, name, bos_id)
    batches = dialogue_batches(
        kept, settings.length, settings.batch_size, settings.epochs, runtime.seed, weights=weights
    )
    steps = steps_in(batches)
    unseen = _unseen(held_out or {}, kept, settings, bos_id)
    evaluate = held_out_loss(_first_batches(unseen, settings, runtime.seed), runtime) if any(unseen.values()) else None
    params = load_model(start, runtime.mesh, "language").params
    fit_language_model(settings, params, iter(batches), steps, runtime, evaluate, base=start)
    return {
        **parameter_counts("language", adapter_config(settings), runtime.model),
        "dialogues": {name: len(encoded) for name, encoded in kept.items()},
        "too_long": too_long,
        "steps": steps,
        "answer_tokens": int(sum(dialogue.loss_mask.sum() for encoded in kept.values() for dialogue in encoded)),
    }


def _unseen(held_out: Dialogues, trained: Dialogues, settings: ConfigDict, bos_id: int) -> Dialogues:
    """The held-out dialogues that fit and do not occur in the training data."""
    seen = {dialogue.tokens.tobytes() for encoded in trained.values() for dialogue in encoded}
    unseen = {}
    for name, encoded in held_out.items():
        fitting, _ = fit_to_length(encoded, settings.length, settings.too_long, f"{name}, held out", bos_id)
        unseen[name] = [dialogue for dialogue in fitting if dialogue.tokens.tobytes() not in seen]
        if len(unseen[name]) < len(fitting):
            logging.info(
                "held out from %s: dropped %d of %d dialogues that are trained on too",
                name, len(fitting) - len(unseen[name]), len(fitting),
            )  # fmt: skip
    return unseen


def _first_batches(dialogues: Dialogues, settings: ConfigDict, seed: int) -> list[dict]:
    batches = dialogue_batches(dialogues, settings.length, settings.batch_size, 1, seed)
    return list(itertools.islice(iter(batches), settings.held_out_batches))
