"""Fine-tuning on packed dialogues (section 3.1), after annotation and after rejection sampling alike."""

import itertools
from collections.abc import Mapping, Sequence

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from llama2_jax.data.dialogues import SPLIT, dialogue_batches, fit_to_length, split_dialogue
from llama2_jax.data.epochs import Batches, steps_in
from llama2_jax.pipeline.encoding import encode_row, read_sources
from llama2_jax.pipeline.model_training import fit_language_model, held_out_loss
from llama2_jax.pipeline.runtime import Runtime
from llama2_jax.pipeline.stage_files import as_folders, read_jsonl, write_json
from llama2_jax.pipeline.trainable import adapter_config, parameter_counts
from llama2_jax.text.dialogue import EncodedDialogue, encode_dialogue
from llama2_jax.text.tokenizer import Tokenizer
from llama2_jax.training.model_folder import load_model

Dialogues = Mapping[str, Sequence[EncodedDialogue]]
# Which epochs' models a training kept: [{"epoch", "step"}, ..].
EPOCHS = "epochs.json"


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


def encode_rows(
    rows: Mapping[str, Sequence[dict]], tokenizer: Tokenizer, longest: int | None = None
) -> dict[str, list[EncodedDialogue]]:
    """Encodes the rows of each source; see `encode_row`.

    Args:
      rows: of each source.
      tokenizer: the tokenizer.
      longest: dialogues of more tokens are split before they are encoded (`split_dialogue`), and each part is a
        dialogue with the `loss` of the whole; None splits none.
    """

    def parts(row: dict) -> list[dict]:
        if longest is None or "response_tokens" in row:
            return [row]
        return [{**row, "messages": part} for part in split_dialogue(tokenizer, row["messages"], longest)]

    return {
        name: [encode_row(tokenizer, part) for row in of_source for part in parts(row)]
        for name, of_source in rows.items()
    }


def longest_part(settings: ConfigDict) -> int | None:
    """Returns into what length a fine-tuning's settings split dialogues; None if they do not."""
    return settings.length if settings.get("too_long") == SPLIT else None


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
      settings: batch_size (rows), length, short_length (0 for no short rows), epochs, too_long, kept_epochs, and the
        optimization (experiments/parts/training.py, `finetuning_schedule`). Of kept epochs epochs.json has the steps.
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
        kept, settings.length, settings.batch_size, settings.epochs, runtime.seed,
        weights=weights, short_length=settings.get("short_length") or None,
    )  # fmt: skip
    steps = steps_in(batches)
    unseen = _unseen(held_out or {}, kept, settings, bos_id)
    evaluate = held_out_loss(_first_batches(unseen, settings, runtime.seed), runtime) if any(unseen.values()) else None
    kept_epochs = _kept_epochs(settings, batches)
    if kept_epochs:
        write_json(runtime.folder / EPOCHS, kept_epochs)
    params = load_model(start, runtime.mesh, "language").params
    kept_steps = [one["step"] for one in kept_epochs]
    fit_language_model(settings, params, iter(batches), steps, runtime, evaluate, base=start, kept_steps=kept_steps)
    return {
        **parameter_counts("language", adapter_config(settings), runtime.model),
        "dialogues": {name: len(encoded) for name, encoded in kept.items()},
        "too_long": too_long,
        "steps": steps,
        "answer_tokens": int(sum(dialogue.loss_mask.sum() for encoded in kept.values() for dialogue in encoded)),
    }


def check_kept_epochs(settings: ConfigDict) -> None:
    """Raises ValueError if the epochs whose models are to be kept are none of the training's."""
    kept = tuple(settings.get("kept_epochs", ()))
    if kept and not (len(kept) == 2 and kept[0] <= kept[1] <= settings.epochs):
        raise ValueError(
            f"kept_epochs={kept}: wanted the first and the last epoch whose models are kept, of {settings.epochs}, or "
            "() for none"
        )


def _kept_epochs(settings: ConfigDict, batches: Batches) -> list[dict]:
    """Returns the number and the last step of each epoch whose model is kept."""
    if not settings.get("kept_epochs"):
        return []
    first, last = settings.kept_epochs
    ends = itertools.accumulate(batches.steps_per_epoch)
    return [{"epoch": epoch, "step": step} for epoch, step in enumerate(ends, 1) if first <= epoch <= last]


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
