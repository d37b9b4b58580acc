"""Recognises the format of a folder with a model."""

from etils import epath

from llama2_jax.interop.checkpoint import BadCheckpoint

KINDS = {
    "orbax": "model.json with checkpoints/ (a model of this project)",
    "huggingface": "config.json with model.safetensors or pytorch_model.bin",
    "meta": "params.json with consolidated.00.pth",
    "peft": "adapter_config.json with adapter_model.safetensors (adapters of another model)",
}


def recognise(path: epath.PathLike) -> str:
    """Returns `orbax`, `huggingface`, `meta` or `peft`.

    Raises:
      BadCheckpoint: if the folder is absent, or contains none of them, or more than one.
    """
    folder = epath.Path(path)
    if not folder.is_dir():
        raise BadCheckpoint(
            f"{folder} {'is a file' if folder.exists() else 'does not exist'}; expected a folder with a model"
        )
    marks = {"orbax": "model.json", "huggingface": "config.json", "meta": "params.json", "peft": "adapter_config.json"}
    found = [kind for kind, mark in marks.items() if (folder / mark).exists()]
    if len(found) == 1:
        return found[0]
    if found:
        raise BadCheckpoint(
            f"{folder} contains {' and '.join(marks[kind] for kind in found)}: leave one kind of model there"
        )
    some = sorted(entry.name for entry in folder.iterdir())[:8]
    raise BadCheckpoint(
        f"{folder} has no model: found {', '.join(some) or 'nothing'}; expected one of: {'; '.join(KINDS.values())}"
    )
