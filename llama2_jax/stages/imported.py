"""A model, a tokenizer or both from outside the run, in place of a stage that would have made them."""

import os

from etils import epath
from ml_collections import ConfigDict

from llama2_jax.interop.checkpoint import check_tokenizer
from llama2_jax.models.config import ModelConfig
from llama2_jax.paths import expand_home
from llama2_jax.pipeline.runtime import Inputs, Runtime
from llama2_jax.sharding.processes import from_first
from llama2_jax.training.model_folder import load_model_description, tokenizer_path

# A checkpoint cannot be used with other values of these; lengths and execution fields may differ.
_MUST_AGREE = ("vocab_size", "dim", "layers", "heads", "kv_heads", "ffn_hidden", "norm_eps", "rope_theta")


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Imports the folder that the config names: its model.json with checkpoints/, its tokenizer.model, or both.

    Raises:
      ValueError: if no folder is named, if it has neither, or if the model or tokenizer is not of the experiment's
        sizes.
    """
    del inputs
    if not config.folder:
        raise ValueError(f"{runtime.stage}: config.{runtime.stage}.folder is empty; name the folder to import")
    folder = epath.Path(expand_home(config.folder))
    tokenizer = tokenizer_path(folder)
    if tokenizer is None and not (folder / "model.json").exists():
        raise ValueError(
            f"{runtime.stage}: {folder} has neither model.json nor tokenizer.model. Convert a checkpoint of Meta or "
            "Hugging Face first: python -m llama2_jax.convert --source=<folder> --target=<folder> --to=orbax"
        )
    from_first(lambda: _import_folder(folder, tokenizer, runtime))
    return {"given": str(folder)}


def _import_folder(folder: epath.Path, tokenizer: epath.Path | None, runtime: Runtime) -> None:
    if tokenizer is not None:
        check_tokenizer(tokenizer, runtime.model.vocab_size)
        tokenizer.copy(runtime.folder / "tokenizer.model", overwrite=True)
    if (folder / "model.json").exists():
        model, _ = load_model_description(folder)
        _check_sizes(model, runtime.model, folder)
        (folder / "model.json").copy(runtime.folder / "model.json", overwrite=True)
        _link(folder / "checkpoints", runtime.folder / "checkpoints")


def _check_sizes(found: ModelConfig, wanted: ModelConfig, folder: epath.Path) -> None:
    different = [
        f"--config.model.{name}={getattr(found, name)} (now {getattr(wanted, name)})"
        for name in _MUST_AGREE
        if getattr(found, name) != getattr(wanted, name)
    ]
    if different:
        raise ValueError(f"the model in {folder} is not the experiment's. To use it, set: {' '.join(different)}")


def _link(source: epath.Path, target: epath.Path) -> None:
    """Links a folder of checkpoints, which may be large; copies it on storage without links."""
    if "://" in f"{source} {target}":
        for file in source.rglob("*"):
            if not file.is_dir():
                copy = target / file.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                file.copy(copy, overwrite=True)
        return
    if os.path.islink(target):
        os.unlink(target)
    os.symlink(os.path.abspath(source), target, target_is_directory=True)
