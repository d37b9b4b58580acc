"""What a finished stage of another run wrote for models to learn from, in place of a stage that would make it.

Comparisons, best samples and dialogues are texts and token ids, so the other run's models may be of any size: smaller
models are fine-tuned on the largest one's samples (section 3.2.3). Its tokenizer must be this run's. The files are
copied; the other run is not needed afterwards.
"""

import hashlib
import os
import types
from collections.abc import Mapping

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from llama2_jax.pipeline.runtime import Inputs, Runtime
from llama2_jax.pipeline.stage_files import read_json
from llama2_jax.sharding.processes import from_first
from llama2_jax.training.model_folder import tokenizer_path

# By the role of the stage that writes them; * stands for what differs between experiments.
RECORDS: Mapping[str, tuple[str, ...]] = types.MappingProxyType({
    "annotation": ("comparisons.jsonl", "comparisons_test.jsonl"),
    "ranking": ("rankings.jsonl",),
    "rejection_sampling": ("samples.jsonl", "bag.jsonl"),
    "ghost_attention": ("dialogues.jsonl",),
    "context_distillation": ("dialogues.jsonl",),
    "evaluation": ("evaluation.json", "answers_*.jsonl"),
})  # fmt: skip


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Imports the records of the stage folder `folder`, which a stage of the role `records_of` wrote.

    Returns:
      That stage's results, where they are from, and the size of its run's models.

    Raises:
      ValueError: if there is no such folder, its stage is not finished or of another role, or its run has another
        tokenizer.
    """
    if config.records_of not in RECORDS:
        raise ValueError(
            f"config.{runtime.stage}.records_of is {config.records_of!r}; choose one of {', '.join(RECORDS)}"
        )
    folder = epath.Path(os.path.expanduser(config.folder))
    return from_first(lambda: _import_records(folder, config.records_of, inputs["tokenizer"], runtime))


def _import_records(folder: epath.Path, role: str, tokenizer: epath.Path, runtime: Runtime) -> dict:
    where = f"config.{runtime.stage}.folder: {folder}"
    record = _finished_stage(folder, role, where)
    _check_tokenizer(folder, tokenizer, where)
    for name in RECORDS[role]:
        files = sorted(folder.glob(name))
        if not files:
            raise ValueError(f"{where} has no {name}, which a finished stage of the role {role} has: restore the file")
        for file in files:
            file.copy(runtime.folder / file.name, overwrite=True)
    seed, model = record["config"].get("seed"), record["config"].get("model", {})
    if seed != runtime.experiment_seed:
        logging.warning(
            "%s is of a run with seed %s, and this one has %d: data that functions make from the seed, as the "
            "miniature's do, are of another world there",
            where, seed, runtime.experiment_seed,
        )  # fmt: skip
    made_by = {"folder": str(folder), "fingerprint": record.get("fingerprint"), "model": model}
    return {**record["results"], "given": made_by}


def _finished_stage(folder: epath.Path, role: str, where: str) -> dict:
    """Returns the record of a finished stage of the role."""
    path = folder / "stage.json"
    if not folder.exists():
        raise ValueError(f"{where} does not exist; wanted the folder of a finished stage of the role {role}")
    if not path.exists():
        state = "has not finished" if (folder / "started.json").exists() else "is not the folder of a stage"
        raise ValueError(f"{where} {state}: it has no stage.json. Wanted a finished stage of the role {role}")
    try:
        record = read_json(path)
        found = record["config"][record["stage"]]["role"]
        record["results"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not the record of a finished stage with a role ({error!r})") from error
    if found != role:
        raise ValueError(f"{where} is a stage of the role {found}; wanted one of the role {role}")
    return record


def _check_tokenizer(folder: epath.Path, tokenizer: epath.Path, where: str) -> None:
    theirs, ours = tokenizer_path(folder), tokenizer / "tokenizer.model"
    if theirs is None:
        raise ValueError(
            f"{where}: its run has no tokenizer.model beside it, so what its token ids mean cannot be checked; restore "
            f"{folder.parent / 'tokenizer'}"
        )
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in (theirs, ours)]
    if hashes[0] != hashes[1]:
        raise ValueError(
            f"{where} was made with another tokenizer, so its token ids mean other things here: {theirs} has the "
            f"SHA-256 {hashes[0]}.., {ours} {hashes[1]}... Take its tokenizer and models that were trained with it: "
            f"--config.given.tokenizer={theirs.parent}"
        )
