"""A judge that knows the answers: whether each response has its question's answer, as a verdict."""

from collections.abc import Mapping, Sequence

from llama2_jax.data.sources import load_function


def judge(rows: Sequence[Mapping], *, right: str) -> list[dict]:
    """Returns a verdict on each response: `helpfulness` 1 and `right` where it has the answer, else 0.

    Args:
      rows: with `messages`, `response` and `answer`.
      right: the dotted path of a function that returns for each row whether it is right, such as
        llama2_jax.evaluation.final_number.right_numbers.
    """
    found = load_function(right)(rows)
    return [{"helpfulness": float(one), "right": bool(one)} for one in found]
