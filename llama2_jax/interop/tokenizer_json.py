"""tokenizer.json of a SentencePiece model, which Hugging Face's fast tokenizers read.

tokenizer.model is not enough: from it alone, current versions of transformers make their Llama tokenizer by ranking
merges by id and not by score, and then split runs of spaces differently.
"""

import json

import sentencepiece
from etils import epath

# How SentencePiece writes a space.
SPACE = "\u2581"


def tokenizer_json(tokenizer_model: epath.PathLike) -> str:
    """Returns the content of tokenizer.json that gives a Llama tokenizer's ids, with BOS added before each text.

    Args:
      tokenizer_model: a SentencePiece BPE model by Llama's rules: byte fallback, no normalisation, a space added before
        the text.
    """
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(epath.Path(tokenizer_model).read_bytes())
    count = processor.vocab_size()
    pieces = [processor.id_to_piece(index) for index in range(count)]
    # Hugging Face finds an added token in any text, where SentencePiece never reads a control symbol. So those beyond
    # these three, such as <pad> or [INST], are not added: a text that has them is spelt with other pieces.
    special = sorted({processor.unk_id(), processor.bos_id(), processor.eos_id()})
    spelt = [
        index for index in range(count)
        if not (processor.is_control(index) or processor.is_unknown(index) or processor.is_byte(index))
    ]  # fmt: skip
    bos = pieces[processor.bos_id()]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special_token(index, pieces[index]) for index in special],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": _after(bos, "A"),
            "pair": _after(bos, "A") + _after(bos, "B"),
            "special_tokens": {bos: {"id": bos, "ids": [processor.bos_id()], "tokens": [bos]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": pieces[processor.unk_id()],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece: index for index, piece in enumerate(pieces)},
            "merges": _merges({pieces[index]: processor.get_score(index) for index in spelt}),
        },
    }
    return json.dumps(content, ensure_ascii=False) + "\n"


def _merges(scores: dict[str, float]) -> list[str]:
    """Returns every merge of two pieces into another, the pieces of highest score first, as SentencePiece merges.

    Whitespace pieces share one score. Their merges are ordered by length, longest first, so that a run of spaces is
    split as by SentencePiece.
    """
    ways = [
        (score, cut, len(piece) - cut, piece)
        for piece, score in scores.items()
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    ways.sort(key=lambda way: way[:3], reverse=True)
    return [f"{piece[:cut]} {piece[cut:]}" for _, cut, _, piece in ways]


def _special_token(index: int, piece: str) -> dict:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": piece, **flags, "special": True}


def _after(bos: str, text: str) -> list[dict]:
    return [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": text, "type_id": 0}}]
