"""What an annotator says of two answers, or of several, checked."""

from collections.abc import Mapping, Sequence

from llama2_jax.data.records import RATINGS


def check_labels(labels: Sequence[Mapping], comparisons: int, annotator: str) -> None:
    """Checks what an annotator returned.

    Raises:
      ValueError: if there is not one label for each comparison, or one lacks a side or a rating, or says of one answer
        alone whether it is safe.
    """
    if len(labels) != comparisons:
        raise ValueError(f"{annotator} returned {len(labels)} labels for {comparisons} comparisons")
    for index, label in enumerate(labels):
        if not isinstance(label, Mapping) or label.get("preferred") not in ("a", "b", "tie"):
            raise ValueError(f"{annotator}: label {index} is {label!r}; wanted the field preferred, 'a', 'b' or 'tie'")
        if label.get("rating") not in RATINGS:
            raise ValueError(
                f"{annotator}: label {index} has the rating {label.get('rating')!r}; wanted one of {', '.join(RATINGS)}"
            )
        safety = label.get("safety")
        if safety and not (isinstance(safety, Mapping) and {"a", "b"} <= safety.keys()):
            raise ValueError(
                f"{annotator}: label {index} has safety {safety!r}; wanted true or false for a and b, or None"
            )


def check_ranks(labels: Sequence[Mapping], answers: Sequence[int], ranker: str) -> None:
    """Checks what a ranker returned.

    Args:
      labels: one for each prompt, with `ranks`.
      answers: how many answers each prompt has.
      ranker: its name, for the message.

    Raises:
      ValueError: if there is not one label for each prompt, or one has not a rank for each answer.
    """
    if len(labels) != len(answers):
        raise ValueError(f"{ranker} returned {len(labels)} rankings for {len(answers)} prompts")
    for index, (label, count) in enumerate(zip(labels, answers, strict=True)):
        ranks = label.get("ranks") if isinstance(label, Mapping) else None
        whole = isinstance(ranks, list | tuple) and all(type(rank) is int and rank >= 1 for rank in ranks)
        if not whole or len(ranks) != count:
            raise ValueError(
                f"{ranker}: ranking {index} is {label!r}; wanted the field ranks, a whole number for each of {count} "
                "answers, 1 for the best"
            )
