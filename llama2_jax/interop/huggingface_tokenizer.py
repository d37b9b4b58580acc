"""tokenizer_config.json: how transformers uses the tokenizer, with the dialogue format as a template."""

import pathlib
from typing import Any

from llama2_jax.text.chat_formats import chat_template
from llama2_jax.text.tokenizer import Tokenizer


def tokenizer_config(tokenizer_model: pathlib.Path, max_length: int, padded: bool) -> dict[str, Any]:
    """Returns the content of tokenizer_config.json.

    Args:
      tokenizer_model: the SentencePiece model.
      max_length: the model's longest sequence.
      padded: whether there is a token for padding, `Tokenizer.padding_id`.
    """
    tokenizer = Tokenizer.load(tokenizer_model)
    unknown, bos, eos = map(tokenizer.piece, (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id))
    return {
        # This class uses tokenizer.json as it is; transformers' own for Llama drops the space before a text that begins
        # with one.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": bos,
        "eos_token": eos,
        "unk_token": unknown,
        "pad_token": tokenizer.piece(tokenizer.padding_id) if padded else None,
        "clean_up_tokenization_spaces": False,
        # If Llama's own class is requested: a space before the text after every special token, as in Meta's code, which
        # encodes each turn separately.
        "legacy": True,
        "model_max_length": max_length,
        "chat_template": chat_template(tokenizer.chat_format),
    }
