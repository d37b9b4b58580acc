"""Tokenizer, dialogue format, loss masks, packing of token sequences."""
