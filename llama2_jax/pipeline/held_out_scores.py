"""A reward model's scores of held-out comparisons, and its accuracy on them."""

from collections.abc import Mapping, Sequence

from llama2_jax.data.preferences import EncodedComparisons
from llama2_jax.evaluation.reward_accuracy import accuracy_by_rating
from llama2_jax.evaluation.reward_test import ScoredComparisons
from llama2_jax.inference.score import rewards
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import Params
from llama2_jax.text.tokenizer import Tokenizer


def score_held_out(
    model: ModelConfig,
    params: Params,
    tokenizer: Tokenizer,
    records: Mapping[str, Sequence[Mapping]],
    encoded: Mapping[str, EncodedComparisons],
) -> dict[str, ScoredComparisons]:
    """Returns the comparisons of each domain that has some, scored by a reward model.

    Args:
      model, params, tokenizer: the reward model's.
      records: of kind preferences, by domain.
      encoded: what was encoded of them.
    """
    return {
        domain: score_comparisons(model, params, tokenizer, records[domain], of_domain)
        for domain, of_domain in encoded.items()
        if of_domain.comparisons
    }


def score_comparisons(
    model: ModelConfig, params: Params, tokenizer: Tokenizer, records: Sequence[Mapping], encoded: EncodedComparisons
) -> ScoredComparisons:
    """Returns the comparisons that were encoded of the records, scored by a reward model."""
    comparisons, kept = encoded.comparisons, [records[index] for index in encoded.kept]
    scores = rewards(model, params, [c.chosen for c in comparisons] + [c.rejected for c in comparisons])
    return ScoredComparisons(
        kept,
        *(scores[: len(comparisons)], scores[len(comparisons) :]),
        *([_answer_length(tokenizer, record, side) for record in kept] for side in ("chosen", "rejected")),
        [comparison.safe for comparison in comparisons],
    )


def held_out_accuracy(scored: ScoredComparisons) -> dict:
    """Returns the accuracy of a reward model on comparisons, by rating."""
    return accuracy_by_rating(scored.chosen, scored.rejected, [row.get("rating", "") for row in scored.records])


def accuracy_tables(scored: Mapping[str, ScoredComparisons]) -> dict[str, dict[str, dict]]:
    """Returns `accuracy`, its `standard_error` and the number of `pairs`, each by domain and rating."""
    accuracy = {domain: held_out_accuracy(one) for domain, one in scored.items()}
    return {
        measure: {d: {name: row[measure] for name, row in table.items()} for d, table in accuracy.items()}
        for measure in ("accuracy", "standard_error", "pairs")
    }


def _answer_length(tokenizer: Tokenizer, record: Mapping, side: str) -> int:
    ids = record.get(f"{side}_tokens")
    return len(tokenizer.encode(record[side], eos=True) if ids is None else ids)
