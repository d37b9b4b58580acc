"""A small model in a Hugging Face folder, and changes of its files."""

import json
import pathlib

import numpy as np

from llama2_jax.interop.huggingface_export import write_huggingface
from llama2_jax.interop.safetensors_file import SafetensorsWriter, read_safetensors
from tests.random_model import GROUPED, in_memory, random_arrays

FLOAT32 = np.dtype(np.float32)


def write_folder(path: pathlib.Path) -> pathlib.Path:
    """Writes the model GROUPED in one file of weights."""
    write_huggingface(in_memory(GROUPED, random_arrays(GROUPED)), path, FLOAT32)
    return path


def change(path, **fields):
    """Changes fields of a JSON file; "absent" removes one."""
    content = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: value for name, value in content.items() if value != "absent"}))


def rewrite(folder, change):
    """Writes the weights anew, with what `change` makes of the dictionary of arrays."""
    path = folder / "model.safetensors"
    arrays = {name: np.array(tensor.view()) for name, tensor in read_safetensors(path).items()}
    change(arrays)
    path.unlink()
    writer = SafetensorsWriter(path, {name: array.shape for name, array in arrays.items()}, FLOAT32)
    for name, array in arrays.items():
        writer.write(name, array)
    writer.close()
