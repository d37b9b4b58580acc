"""Rankings of several answers to a prompt (InstructGPT, section 3.5): their encoding, and packed batches of them.

A record of kind rankings has `messages` as a prompt has them, `answers`, and of each its rank, 1 for the best, in
`ranks`; answers of one rank are tied. Each answer is encoded, packed and read once, whatever the pairs that it is in.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from llama2_jax.data.answer_batches import ComparedAnswers, answer_batches, check_divides
from llama2_jax.data.epochs import Batches
from llama2_jax.data.long_answers import check_too_long, fit_answers
from llama2_jax.text.dialogue import EncodedDialogue, encode_dialogue, encode_with_answer
from llama2_jax.text.tokenizer import Tokenizer

# What a batch has of each pair: what its loss is multiplied by, and its share of its prompt's pairs, which sum to 1.
RANKING_LABELS = ("pair_weight", "prompt_share")


class EncodedRankings(NamedTuple):
    """Encoded rankings and what became of the others.

    Attributes:
      rankings: the answers of each, and the pairs of which one is better.
      kept: the index of each one's record.
      too_long: the number of records with an answer longer than the length: dropped or truncated.
      all_tied: the number left out because no answer is better than another one of other tokens.
    """

    rankings: list[ComparedAnswers]
    kept: list[int]
    too_long: int
    all_tied: int


def encode_rankings(
    tokenizer: Tokenizer, records: Sequence[Mapping], *, length: int, too_long: str, source: str
) -> EncodedRankings:
    """Encodes records of kind rankings; sampled answers keep their ids (`answers_tokens`).

    Args:
      tokenizer: the tokenizer.
      records: of kind rankings (records.py).
      length: the most tokens of prompt and answer.
      too_long: for longer ones: "raise", "drop" the record, or "truncate_left" all of its answers by the same amount.
      source: its name, for messages.

    Raises:
      ValueError: if an answer is too long under "raise", or the policy is unknown.
    """
    check_too_long(too_long)
    rankings, kept, long, tied = [], [], 0, 0
    for index, record in enumerate(records):
        whole = _with_answers(tokenizer, record)
        long += max(map(len, whole)) > length
        place = f"source {source!r}, ranking {index}"
        answers = fit_answers(tokenizer, record["messages"], whole, length=length, too_long=too_long, place=place)
        if not answers:
            continue
        tokens = [answer.tokens for answer in answers]
        pairs = better_and_worse(tokens, record["ranks"])
        if not len(pairs):
            tied += 1
            continue
        kept.append(index)
        rankings.append(ComparedAnswers(tokens, pairs))
    if long:
        logging.warning("%s: %d of %d rankings are longer than %d: %s", source, long, len(records), length, too_long)
    if tied:
        logging.warning("%s: left out %d of %d rankings without a better answer", source, tied, len(records))
    return EncodedRankings(rankings, kept, long, tied)


def better_and_worse(answers: Sequence[np.ndarray], ranks: Sequence[int]) -> np.ndarray:
    """Returns all pairs [pairs, 2] of answers of which the first is ranked higher; ties and equal answers are none."""
    pairs = [
        (better, worse)
        for better in range(len(answers))
        for worse in range(len(answers))
        if ranks[better] < ranks[worse] and not np.array_equal(answers[better], answers[worse])
    ]
    return np.asarray(pairs, np.int64).reshape(-1, 2)


def ranking_batches(
    rankings: Sequence[ComparedAnswers],
    prompts_per_batch: int,
    length: int,
    seed: int,
    epochs: int = 1,
    *,
    accumulation: int = 1,
    row_multiple: int = 8,
) -> Batches:
    """Returns batches of rankings, each with all of its answers and pairs in one batch; see `answer_batches`.

    As the pairs of a prompt are not independent, a model overfits in one epoch where each is met by itself in another
    batch (InstructGPT, section 3.5).

    Args:
      rankings: from `encode_rankings`.
      prompts_per_batch: a batch's rankings.
      length, seed, epochs, accumulation, row_multiple: as for `answer_batches`.

    Returns:
      Batches with the labels RANKING_LABELS, float32: 1 / C(K, 2) of the pair's K answers, ties counted, and
      1 / (its prompt's pairs), so that the sum over a batch is its number of prompts.

    Raises:
      ValueError: if an answer is too long, there are no rankings, or a batch cannot be divided into microbatches.
    """
    check_divides("prompts_per_batch", prompts_per_batch, accumulation)
    if not rankings:
        raise ValueError("there are no rankings to train on")
    pairs = [len(ranking.pairs) for ranking in rankings]
    values = (
        [1 / math.comb(len(ranking.answers), 2) for ranking in rankings],
        [1 / count for count in pairs],
    )
    labels = {
        name: np.repeat(np.asarray(of_each, np.float32), pairs)
        for name, of_each in zip(RANKING_LABELS, values, strict=True)
    }
    return answer_batches(
        rankings, prompts_per_batch, length, seed, epochs,
        accumulation=accumulation, row_multiple=row_multiple, labels=labels, kind="ranking",
    )  # fmt: skip


def _with_answers(tokenizer: Tokenizer, record: Mapping) -> list[EncodedDialogue]:
    if "answers_tokens" in record:
        return [encode_with_answer(tokenizer, record["messages"], ids) for ids in record["answers_tokens"]]
    return [
        encode_dialogue(tokenizer, [*record["messages"], {"role": "assistant", "content": answer}], "last")
        for answer in record["answers"]
    ]
