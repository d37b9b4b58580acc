"""tokenizer_config.json: how transformers uses the tokenizer, with the dialogue format as a template."""

import pathlib
from typing import Any

import sentencepiece

# The dialogue format of text/dialogue.py: the system message inside the first user turn, each answer between a space
# and the EOS.
CHAT_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for turn in turns %}"
    "{% if turn['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') %}"
    "{{ raise_exception('after a system message, if any, roles must be user, assistant, user, ...') }}{% endif %}"
    "{% if turn['role'] == 'user' %}"
    "{% set text = (system if loop.first else '') + turn['content'] %}"
    "{{ bos_token + '[INST] ' + text.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + turn['content'].strip() + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)


def tokenizer_config(tokenizer_model: pathlib.Path, max_length: int, padded: bool) -> dict[str, Any]:
    """Returns the content of tokenizer_config.json.

    Args:
      tokenizer_model: the SentencePiece model.
      max_length: the model's longest sequence.
      padded: whether the unknown token, which no text yields, serves as padding.
    """
    processor = sentencepiece.SentencePieceProcessor(str(tokenizer_model))
    special = (processor.unk_id(), processor.bos_id(), processor.eos_id())
    unknown, bos, eos = (processor.id_to_piece(number) for number in special)
    return {
        # This class uses tokenizer.json as it is; transformers' own for Llama drops the space before a text that begins
        # with one.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": bos,
        "eos_token": eos,
        "unk_token": unknown,
        "pad_token": unknown if padded else None,
        "clean_up_tokenization_spaces": False,
        # If Llama's own class is requested: a space before the text after every special token, as in Meta's code, which
        # encodes each turn separately.
        "legacy": True,
        "model_max_length": max_length,
        "chat_template": CHAT_TEMPLATE,
    }
