"""A measure's mean over all prompts of a set and over those of each group, with its standard error."""

from collections.abc import Mapping, Sequence

from llama2_jax.evaluation.binomial import binomial_error
from llama2_jax.evaluation.paired import mean_and_error

ALL = "all"


def group_means(
    prompts: Sequence[Mapping], measure: str, values: Sequence[float | bool | None], *, overall: bool
) -> list[dict]:
    """Returns a row for each group, in the order of the prompts.

    Args:
      prompts: with `domain` and `group`.
      measure: what the values say.
      values: of each prompt's answer, true or false, or a number; None, which is left out, where a judge cannot decide.
      overall: whether the last row, of the group ALL, is over all groups; it is the only one if there is one group.

    Returns:
      `domain`, `group`, `measure`, the number of `prompts` that are judged, the mean `value` and its `standard_error`:
      binomial where the values are true or false. None where no prompt is judged, and the error of a single number.
    """
    groups: dict[tuple[str, str], list] = {}
    for prompt, value in zip(prompts, values, strict=True):
        groups.setdefault((prompt["domain"], prompt["group"]), []).append(value)
    if overall and len(groups) == 1:
        groups = {}
    if overall:
        groups["", ALL] = list(values)
    return [
        {"domain": domain, "group": group, "measure": measure, **_mean([one for one in of if one is not None])}
        for (domain, group), of in groups.items()
    ]


def _mean(values: Sequence[float | bool]) -> dict:
    value, error = mean_and_error(values) if values else (None, None)
    if values and all(isinstance(one, bool) for one in values):
        error = binomial_error(value, len(values))
    return {"prompts": len(values), "value": value, "standard_error": error}
