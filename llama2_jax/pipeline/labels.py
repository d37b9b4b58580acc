"""What an annotator says of two answers, checked."""

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
