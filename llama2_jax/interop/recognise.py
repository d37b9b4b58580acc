"""Of which kind a folder with a model is."""

from etils import epath

from llama2_jax.interop.checkpoint import BadCheckpoint

KINDS = {
    "orbax": "model.json beside checkpoints/ (a model of this project)",
    "huggingface": "config.json beside model.safetensors or pytorch_model.bin",
    "meta": "params.json beside consolidated.00.pth",
}


def recognise(path: epath.PathLike) -> str:
    """`orbax`, `huggingface` or `meta`.

    Raises:
      BadCheckpoint: where the folder is absent, or holds none of them, or more than one.
    """
    folder = epath.Path(path)
    if not folder.is_dir():
        raise BadCheckpoint(
            f"{folder} is {'a file' if folder.exists() else 'not there'}; wanted is a folder with a model"
        )
    marks = {"orbax": "model.json", "huggingface": "config.json", "meta": "params.json"}
    found = [kind for kind, mark in marks.items() if (folder / mark).exists()]
    if len(found) == 1:
        return found[0]
    if found:
        raise BadCheckpoint(
            f"{folder} holds {' and '.join(marks[kind] for kind in found)}: leave one kind of model there"
        )
    some = sorted(entry.name for entry in folder.iterdir())[:8]
    raise BadCheckpoint(
        f"{folder} holds no model: found {', '.join(some) or 'nothing'}; wanted is one of: {'; '.join(KINDS.values())}"
    )
