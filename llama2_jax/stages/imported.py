"""A model, a tokenizer or both from outside the run, in place of a stage that would have made them."""

import os
from collections.abc import Mapping

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.hub.address import is_address
from llama2_jax.interop.checkpoint import check_tokenizer, copy_tokenizer
from llama2_jax.interop.hub_model import local_model
from llama2_jax.models.config import ModelConfig
from llama2_jax.paths import expand_home
from llama2_jax.pipeline.runtime import Inputs, Runtime
from llama2_jax.pipeline.stage_files import write_text
from llama2_jax.sharding.processes import from_first
from llama2_jax.text.chat_formats import FILE as FORMAT_FILE
from llama2_jax.text.chat_formats import chat_format, format_file
from llama2_jax.training.checkpoint_folder import copy_checkpoints
from llama2_jax.training.model_folder import (
    check_head,
    describe_model_of,
    load_model_description,
    tokenizer_path,
)

# Beside a model: a rejection sampling's best samples, which later rounds pool, or the offset of a reward model.
_BESIDE = ("samples.jsonl", "bag.jsonl", "offset.json")

# A checkpoint cannot be used with other values of these; lengths and execution fields may differ.
_MUST_AGREE = ("vocab_size", "dim", "layers", "heads", "kv_heads", "ffn_hidden", "norm_eps", "rope_theta")
# The heads of the models that stages of these roles make; other roles may take either.
_HEADS = {
    **dict.fromkeys(
        ("pretraining", "finetuning", "checkpoint_choice", "rejection_sampling", "ppo", "dpo", "safety_scaling"),
        "language",
    ),
    **dict.fromkeys(
        (
            "reward_model",
            "reward_scaling",
            "reward_ablation",
            "ranked_reward_model",
            "annotator_model",
            "general_reward_model",
        ),
        "scalar",
    ),
}


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Imports the folder that the config names: its model.json with checkpoints/, its tokenizer.model, or both.

    The folder is local, on gs://, or a repository on the Hugging Face hub, hf://<org>/<name>[@<revision>].

    Args:
      config: has `folder`, and perhaps the `role` of the stage that it replaces. With a `chat_format` the tokenizer's
        pieces are taken for dialogues in another format than its run's (text/chat_formats.py).
      inputs: if there is a `tokenizer`, the run's, the folder has a model for it.
      runtime: the stage's.

    Raises:
      ValueError: if no folder is named, if it has neither, if the model or tokenizer is not of the experiment's sizes,
        if the model has another head than the role needs, or if it was trained with another tokenizer than the run's.
    """
    if not config.folder:
        raise ValueError(f"{runtime.stage}: config.{runtime.stage}.folder is empty; name the folder to import")
    from_first(lambda: _import_model(config.folder, config.get("role", ""), inputs, runtime))
    if config.get("chat_format"):
        write_text(runtime.folder / FORMAT_FILE, format_file(chat_format(config.chat_format)))
    return {"given": config.folder}


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if the chat format is unknown."""
    del inputs, count
    if config.get("chat_format"):
        chat_format(config.chat_format)


def _import_model(source: str, role: str, inputs: Inputs, runtime: Runtime) -> None:
    folder = epath.Path(expand_home(local_model(source)))
    tokenizer = tokenizer_path(folder)
    if tokenizer is None and not (folder / "model.json").exists():
        raise ValueError(
            f"{runtime.stage}: {source} has neither model.json nor tokenizer.model. Convert a checkpoint of Meta or "
            f"Hugging Face first: python -m llama2_jax.convert --source={source} --target=<folder> --to=orbax"
        )
    _check_purpose(role, folder, tokenizer, runtime.stage)
    if "tokenizer" in inputs:
        _check_same_tokenizer(tokenizer, inputs["tokenizer"], source if is_address(source) else folder)
    if tokenizer is not None:
        check_tokenizer(tokenizer, runtime.model.vocab_size)
        copy_tokenizer(tokenizer, runtime.folder)
    if (folder / "model.json").exists():
        model, _ = load_model_description(folder)
        _check_sizes(model, runtime.model, folder)
        describe_model_of(folder, runtime.folder)
        # The hub's cache may be emptied, and other machines do not have it: what is from there is copied.
        _link(folder / "checkpoints", runtime.folder / "checkpoints", copy=is_address(source))
        for name in _BESIDE:
            if (folder / name).exists():
                (folder / name).copy(runtime.folder / name, overwrite=True)


def _check_purpose(role: str, folder: epath.Path, tokenizer: epath.Path | None, stage: str) -> None:
    """Raises if the folder lacks what a stage of the role makes, or has a model with another head."""
    if role == "tokenizer" and tokenizer is None:
        raise ValueError(f"{stage}: {folder} has no tokenizer.model, which is what the stage is for")
    if role in _HEADS:
        _, head = load_model_description(folder)
        check_head(head, _HEADS[role], f"{stage}: the model in {folder}")


def _check_same_tokenizer(own: epath.Path | None, run: epath.Path, source: epath.Path | str) -> None:
    """Raises if the model's own tokenizer is not the run's: the ids that it learnt would mean other texts."""
    if own is None:
        logging.warning("%s has no tokenizer.model: we assume that its tokenizer is that of %s", source, run)
    elif own.read_bytes() != (run / "tokenizer.model").read_bytes():
        given = source if is_address(str(source)) else own.parent
        raise ValueError(
            f"the model in {source} was trained with {own}, which is not the run's tokenizer, {run}/tokenizer.model. "
            f"To use the model's, set: --config.given.{run.name}={given}"
        )


def _check_sizes(found: ModelConfig, wanted: ModelConfig, folder: epath.Path) -> None:
    different = [
        f"--config.model.{name}={getattr(found, name)} (now {getattr(wanted, name)})"
        for name in _MUST_AGREE
        if getattr(found, name) != getattr(wanted, name)
    ]
    if different:
        raise ValueError(f"the model in {folder} is not the experiment's. To use it, set: {' '.join(different)}")


def _link(source: epath.Path, target: epath.Path, copy: bool) -> None:
    """Links a folder of checkpoints, which may be large; copies it if that is wanted, or on storage without links."""
    if copy or "://" in f"{source} {target}":
        copy_checkpoints(source, target)
        return
    if os.path.islink(target):
        os.unlink(target)
    os.symlink(os.path.abspath(source), target, target_is_directory=True)
