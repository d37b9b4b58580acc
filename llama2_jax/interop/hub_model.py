"""A model on the Hugging Face hub: which of the repository's files it consists of, and a local folder with them."""

import fnmatch
import functools
import os
from collections.abc import Sequence

from llama2_jax.hub.address import is_address, parse_address
from llama2_jax.hub.errors import HubError
from llama2_jax.hub.fetch import fetch_folder
from llama2_jax.interop.recognise import KINDS

# For each file that marks a kind of model what its weights are named, the first that there are: many repositories have
# them twice, in two formats.
_WEIGHTS = {
    "model.json": ("checkpoints/*",),
    "config.json": ("model*.safetensors", "pytorch_model*.bin"),
    "params.json": ("consolidated.*.pth",),
    "adapter_config.json": ("adapter_model.safetensors",),
}


def local_model(path: str | os.PathLike) -> str | os.PathLike:
    """Returns the local folder of a model: the path itself, or for an address on the hub the folder in its cache.

    Raises:
      HubError: if the model cannot be had.
    """
    if not is_address(path):
        return path
    address = parse_address(os.fspath(path))
    if address.kind != "model" or address.path:
        raise HubError(f"{path}: a model's address is hf://<org>/<name>[@<revision>]")
    return fetch_folder(address, functools.partial(model_files, os.fspath(path)))


def model_files(address: str, names: Sequence[str]) -> list[str]:
    """Returns the files of a repository that make a model of one of the formats that can be read.

    Args:
      address: of the repository, for messages.
      names: of all its files.

    Raises:
      HubError: if there is none, or one without weights.
    """
    top = [name for name in names if "/" not in name]
    kinds = {mark: _weights(mark, names, top) for mark in _WEIGHTS if mark in top}
    mark = next((mark for mark, weights in kinds.items() if weights), None)
    if mark is None:
        missing = f"{next(iter(kinds))}, but no weights beside it" if kinds else "no model"
        some = ", ".join(sorted(names)[:8]) or "nothing"
        raise HubError(
            f"{address}: the repository has {missing}: found {some}; expected one of: {'; '.join(KINDS.values())}"
        )
    described = (name for name in top if name.endswith(".json") and (name == mark or name not in _WEIGHTS))
    return sorted({*kinds[mark], *described, *({"tokenizer.model"} & set(top))})


def _weights(mark: str, names: Sequence[str], top: Sequence[str]) -> list[str]:
    """Returns the files with the weights of a kind of model; `top` are those that are in no folder."""
    found = (fnmatch.filter(names if "/" in pattern else top, pattern) for pattern in _WEIGHTS[mark])
    return next((files for files in found if files), [])
