"""The ids of BOS and EOS that a Hugging Face folder names, compared with those of its tokenizer."""

import pathlib

from absl import logging

from llama2_jax.interop.checkpoint import BadCheckpoint, read_json_object
from llama2_jax.text.tokenizer import Tokenizer

# transformers ends answers at the eos_token_id of generation_config.json, or else of config.json.
_FILES = ("config.json", "generation_config.json")


def check_special_ids(folder: pathlib.Path, tokenizer: Tokenizer) -> None:
    """Warns if a file names other ids than the tokenizer has, whose ids are the ones used here.

    Early exports of LLaMA have BOS 0 and EOS 1, which is wrong, and some models end answers at further tokens.

    Raises:
      BadCheckpoint: if an id is not one of the tokenizer's vocabulary.
    """
    own, others = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.end_id}, []
    for path in (folder / name for name in _FILES):
        described = read_json_object(path) if path.exists() else {}
        for field, wanted in own.items():
            said = described.get(field)
            if said is None:
                continue
            ids, last = said if isinstance(said, list) else [said], tokenizer.vocab_size - 1
            if not ids or not all(type(one) is int and 0 <= one <= last for one in ids):
                raise BadCheckpoint(f"{path}: {field} is {said!r}, expected an id from 0 to {last}, or a list of them")
            if ids != [wanted]:
                others.append(f"{field} is {said} in {path.name} and {wanted} in tokenizer.model")
    if others:
        logging.warning(
            "%s: %s. The tokenizer's are used here; transformers uses the others and may end answers elsewhere",
            folder, "; ".join(others),
        )  # fmt: skip
