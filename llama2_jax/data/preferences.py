"""Comparisons to learn from: their encoding, the data mixtures of section 3.2.2, and packed batches of pairs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Int, Shaped

from llama2_jax.data.answer_batches import ComparedAnswers, answer_batches, check_divides
from llama2_jax.data.epochs import Batches, generator
from llama2_jax.data.long_answers import check_too_long, fit_answers
from llama2_jax.data.records import SAFETY_LABELS
from llama2_jax.text.dialogue import EncodedDialogue, encode_dialogue, encode_with_answer
from llama2_jax.text.tokenizer import Tokenizer

# What reward models learn from, of each comparison of a batch.
REWARD_LABELS = ("margin", "chosen_safe", "rejected_safe", "safety_known")
_SAFE = {label: safe for safe, label in SAFETY_LABELS.items()}
# Of a comparison's two answers the first is preferred.
_ONE_PAIR = np.asarray([[0, 1]])


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A comparison of two answers as token ids.

    Attributes:
      chosen: the prompt and the preferred answer; its score is read at the last token.
      rejected: the prompt and the other answer.
      rating: how much better the chosen one is (records.RATINGS); "" if it was not rated.
      margin: of the ranking loss.
      safe: whether the chosen and the rejected answer are safe; None without a label.
      answer_sizes: how many of the last tokens of `chosen` and of `rejected` are the answer's own, the EOS included.
    """

    chosen: Int[np.ndarray, " tokens"]
    rejected: Int[np.ndarray, " tokens"]
    rating: str
    margin: float
    safe: tuple[bool, bool] | None
    answer_sizes: tuple[int, int]


class EncodedComparisons(NamedTuple):
    """Encoded comparisons and what became of the others.

    Attributes:
      comparisons: the comparisons.
      kept: the index of each one's record.
      too_long: the number of records that were longer than the length: dropped or truncated.
      same_tokens: the number left out because both sides are the same ids, as texts that differ in the white space
        around them are, or answers that differ only in what was truncated: there is nothing to prefer.
    """

    comparisons: list[Comparison]
    kept: list[int]
    too_long: int
    same_tokens: int


def encode_comparisons(
    tokenizer: Tokenizer,
    records: Sequence[Mapping],
    *,
    margins: Mapping[str, float],
    length: int,
    too_long: str,
    source: str,
) -> EncodedComparisons:
    """Encodes records of kind preferences; sampled answers keep their ids (`chosen_tokens`, `rejected_tokens`).

    Comparisons of two answers with the same ids are left out. Their number, and that of long ones, is logged too.

    Args:
      tokenizer: the tokenizer.
      records: of kind preferences (records.py).
      margins: the margin of each rating (Table 27); a record without a rating has margin 0.
      length: the most tokens of prompt and answer.
      too_long: for longer ones: "raise", "drop" them, or "truncate_left": the oldest pairs are left out of both, and
        if that is not enough the beginning of the last one.
      source: its name, for messages.

    Raises:
      ValueError: if a comparison is too long under "raise", the policy is unknown, or a rating has no margin.
    """
    check_too_long(too_long)
    comparisons, kept, long, same = [], [], 0, 0
    for index, record in enumerate(records):
        whole = [_with_answer(tokenizer, record, side) for side in ("chosen", "rejected")]
        long += max(map(len, whole)) > length
        place = f"source {source!r}, comparison {index}"
        pair = fit_answers(tokenizer, record["messages"], whole, length=length, too_long=too_long, place=place)
        if not pair:
            continue
        if np.array_equal(pair[0].tokens, pair[1].tokens):
            same += 1
            continue
        rating = record.get("rating", "")
        if rating and rating not in margins:
            raise ValueError(f"{place}: rating {rating!r} has no margin in {dict(margins)}")
        margin = float(margins[rating]) if rating else 0.0
        safe = _SAFE[record["safety_label"]] if record.get("safety_label") else None
        kept.append(index)
        sizes = tuple(int(np.count_nonzero(encoded.loss_mask)) for encoded in pair)
        comparisons.append(Comparison(*(encoded.tokens for encoded in pair), rating, margin, safe, sizes))
    if long:
        logging.warning("%s: %d of %d comparisons are longer than %d: %s", source, long, len(records), length, too_long)
    if same:
        logging.warning("%s: left out %d of %d comparisons of two equal answers", source, same, len(records))
    return EncodedComparisons(comparisons, kept, long, same)


def helpfulness_mix(helpfulness: Sequence, others: Sequence, other_fraction: float = 0.5, seed: int = 0) -> list:
    """Returns the helpfulness model's data: all helpfulness comparisons and an equal part of others (section 3.2.2).

    Args:
      helpfulness: used in full.
      others: safety and open-source comparisons; sampled uniformly, without replacement.
      other_fraction: their fraction of the result; if there are too few, all of them are taken.
      seed: determines the sample.

    Returns:
      The records, helpfulness first.
    """
    return _mix(helpfulness, others, other_fraction, seed)


def safety_mix(safety: Sequence, helpfulness: Sequence, helpfulness_fraction: float = 0.1, seed: int = 0) -> list:
    """Returns the safety model's data: all safety comparisons, and a tenth of helpfulness ones (section 3.2.2).

    That tenth helps most with pairs of two safe answers. Arguments and result as in `helpfulness_mix`.
    """
    return _mix(safety, helpfulness, helpfulness_fraction, seed)


def preference_batches(
    comparisons: Sequence[Comparison],
    pairs_per_batch: int,
    length: int,
    seed: int,
    epochs: int = 1,
    *,
    accumulation: int = 1,
    row_multiple: int = 8,
    labels: Mapping[str, Shaped[np.ndarray, " comparisons"]] | None = None,
) -> Batches:
    """Returns batches of pairs, with both answers of each packed into rows.

    Batches have one of two numbers of rows, so that two compiled programs serve them all: the number that suffices for
    nine in ten batches, or that of the fullest one.

    Args:
      comparisons: anything with the fields chosen and rejected of `Comparison`, and margin and safe without `labels`.
      pairs_per_batch: a batch's comparisons. An epoch's last batch is filled up with padding pairs (pair_mask 0).
      length: tokens a row.
      seed: determines the order, which differs in each epoch.
      epochs: their number.
      accumulation: above 1, each batch is packed as so many microbatches and every array has a leading axis of them;
        row indices are then within the microbatch.
      row_multiple: the number of rows is a multiple of it.
      labels: by name what else the batches have of each comparison; by default what reward models learn from.

    Returns:
      Batches of tokens, segment_ids, positions (int32 [rows, length]); chosen_row, chosen_column, rejected_row,
      rejected_column (int32 [pairs]): the place of each answer's last token; the labels [pairs], 0 in padding pairs, by
      default margin, chosen_safe, rejected_safe and safety_known (float32); pair_mask (float32 [pairs]); and `ids`, the
      indices of the comparisons, as strings.

    Raises:
      ValueError: if a comparison is too long, there are none, or a batch cannot be divided into microbatches.
    """
    check_divides("pairs_per_batch", pairs_per_batch, accumulation)
    if not comparisons:
        raise ValueError("there are no comparisons to train on")
    groups = [ComparedAnswers((one.chosen, one.rejected), _ONE_PAIR) for one in comparisons]
    return answer_batches(
        groups, pairs_per_batch, length, seed, epochs,
        accumulation=accumulation, row_multiple=row_multiple, kind="comparison",
        labels=_reward_labels(comparisons) if labels is None else labels,
    )  # fmt: skip


def _with_answer(tokenizer: Tokenizer, record: Mapping, side: str) -> EncodedDialogue:
    if f"{side}_tokens" in record:
        return encode_with_answer(tokenizer, record["messages"], record[f"{side}_tokens"])
    return encode_dialogue(tokenizer, [*record["messages"], {"role": "assistant", "content": record[side]}], "last")


def _mix(main: Sequence, others: Sequence, other_fraction: float, seed: int) -> list:
    if not 0 <= other_fraction < 1:
        raise ValueError(f"the others' fraction is {other_fraction}; wanted 0 or more and below 1")
    wanted = round(len(main) * other_fraction / (1 - other_fraction))
    if wanted > len(others):
        logging.warning("mixture: wanted %d other comparisons, took all %d that there are", wanted, len(others))
    drawn = generator(seed, "mixture").permutation(len(others))[:wanted]
    return [*main, *(others[index] for index in sorted(drawn.tolist()))]


def _reward_labels(comparisons: Sequence[Comparison]) -> dict[str, np.ndarray]:
    safe = [comparison.safe or (False, False) for comparison in comparisons]
    return {
        "margin": np.asarray([comparison.margin for comparison in comparisons], np.float32),
        "chosen_safe": np.asarray([chosen for chosen, _ in safe], np.float32),
        "rejected_safe": np.asarray([rejected for _, rejected in safe], np.float32),
        "safety_known": np.asarray([comparison.safe is not None for comparison in comparisons], np.float32),
    }
