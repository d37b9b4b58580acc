"""Inference: generation, and scores of given tokens. Independent of training."""
