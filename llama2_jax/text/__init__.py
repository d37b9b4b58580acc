"""Tokenizer, chat format, loss masks, packing of token sequences."""
