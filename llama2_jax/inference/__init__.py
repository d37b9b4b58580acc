"""A model at work: generation and scores of given tokens. Knows no trainer."""
