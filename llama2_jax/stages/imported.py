"""A model, a tokenizer or both from outside the run, in place of a stage that would have made them."""

import os

from etils import epath
from ml_collections import ConfigDict

from llama2_jax.hub.address import is_address
from llama2_jax.interop.checkpoint import check_tokenizer
from llama2_jax.interop.hub_model import local_model
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.runtime import Inputs, Runtime
from llama2_jax.sharding.processes import from_first
from llama2_jax.training.model_folder import load_model_description, tokenizer_path

# A checkpoint cannot be used with other values of these; lengths and execution fields may differ.
_MUST_AGREE = ("vocab_size", "dim", "layers", "heads", "kv_heads", "ffn_hidden", "norm_eps", "rope_theta")


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Imports the folder that the config names: its model.json with checkpoints/, its tokenizer.model, or both.

    The folder is local, on gs://, or a repository on the Hugging Face hub, hf://<org>/<name>[@<revision>].

    Raises:
      ValueError: if no folder is named, if it has neither, or if the model or tokenizer is not of the experiment's
        sizes.
    """
    del inputs
    if not config.folder:
        raise ValueError(f"{runtime.stage}: config.{runtime.stage}.folder is empty; name the folder to import")
    from_first(lambda: _import_model(config.folder, runtime))
    return {"given": config.folder}


def _import_model(source: str, runtime: Runtime) -> None:
    folder = epath.Path(local_model(source))
    tokenizer = tokenizer_path(folder)
    if tokenizer is None and not (folder / "model.json").exists():
        raise ValueError(
            f"{runtime.stage}: {source} has neither model.json nor tokenizer.model. Convert a checkpoint of Meta or "
            f"Hugging Face first: python -m llama2_jax.convert --source={source} --target=<folder> --to=orbax"
        )
    if tokenizer is not None:
        check_tokenizer(tokenizer, runtime.model.vocab_size)
        tokenizer.copy(runtime.folder / "tokenizer.model", overwrite=True)
    if (folder / "model.json").exists():
        model, _ = load_model_description(folder)
        _check_sizes(model, runtime.model, folder)
        (folder / "model.json").copy(runtime.folder / "model.json", overwrite=True)
        # The hub's cache may be emptied, and other machines do not have it: what is from there is copied.
        _link(folder / "checkpoints", runtime.folder / "checkpoints", copy=is_address(source))


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
        _copy(source, target)
        return
    if os.path.islink(target):
        os.unlink(target)
    os.symlink(os.path.abspath(source), target, target_is_directory=True)


def _copy(source: epath.Path, target: epath.Path) -> None:
    """Copies a folder with all that is in it; epath has no way to list folders of any depth."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        if entry.is_dir():
            _copy(entry, target / entry.name)
        else:
            entry.copy(target / entry.name, overwrite=True)
