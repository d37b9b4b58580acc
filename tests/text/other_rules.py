"""Tokenizers with other rules than Llama's, as SentencePiece's users train them."""

import io

import sentencepiece

from tests.text.conftest import corpus

RULES = {
    "nmt_nfkc": {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True},
    "lower case": {"normalization_rule_name": "nmt_nfkc_cf"},
    "no extra spaces": {"remove_extra_whitespaces": True},
    "no space in front": {"add_dummy_prefix": False},
    "spaces behind words": {"treat_whitespace_as_suffix": True},
    "own symbols": {"user_defined_symbols": ["<|turn|>", "[INST]"]},
    "unigram": {"model_type": "unigram"},
}


def train_with(rules: dict, vocab_size: int = 480) -> bytes:
    """Returns a SentencePiece model like Llama's but for these settings."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=model, minloglevel=2,
        **{
            "model_type": "bpe", "vocab_size": vocab_size, "character_coverage": 1.0, "unk_id": 0, "bos_id": 1,
            "eos_id": 2, "pad_id": -1, "byte_fallback": True, "split_digits": True,
            "allow_whitespace_only_pieces": True, "add_dummy_prefix": True, "remove_extra_whitespaces": False,
            "normalization_rule_name": "identity", "hard_vocab_limit": "model_type" not in rules, **rules,
        },
    )  # fmt: skip
    return model.getvalue()
