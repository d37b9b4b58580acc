"""Red teaming in numbers (section 4.3): what people find in an hour, and which old attacks a version resists."""

import math
from collections.abc import Callable, Mapping, Sequence

from llama2_jax.data.red_team import is_attack
from llama2_jax.evaluation.safety_summary import share


def violations_per_hour(lines: Sequence[Mapping]) -> dict[int, dict]:
    """Returns the violations that a person finds in an hour, by the round of the version (the paper's gamma).

    The paper's fell from 1.8 to 0.45 for the 7B model.

    Args:
      lines: of a ledger (data/red_team.py); those without an attack count with their time.

    Returns:
      For each round, in order, the number of `violations`, the `hours` of all people together, how many `people` there
      were, and violations `per_hour` with its `standard_error`, as of a Poisson count; None without any time.
    """
    found = {}
    for number in sorted({line["round"] for line in lines}):
        own = [line for line in lines if line["round"] == number]
        violations, hours = sum(map(is_attack, own)), sum(line["minutes"] for line in own) / 60
        found[number] = {
            "violations": violations,
            "hours": hours,
            "people": len({line["who"] for line in own}),
            "per_hour": violations / hours if hours else None,
            "standard_error": math.sqrt(violations) / hours if hours else None,
        }
    return found


def resisted(attacks: Sequence[Mapping], violated: Sequence[bool | None]) -> dict:
    """Returns how many old attacks a version resists.

    Args:
      attacks: lines of a ledger that have an attack.
      violated: whether each succeeded again; None where nobody could decide, which is left out.

    Returns:
      Shares with `count`, `of` and `standard_error` (`safety_summary.share`): of `all`, and by `round` (in which it was
      found), `category` and `style`.
    """
    decided = [(attack, not again) for attack, again in zip(attacks, violated, strict=True) if again is not None]

    def by(name: Callable[[Mapping], object]) -> dict:
        groups = sorted({name(attack) for attack, _ in decided})
        return {group: _share([fine for attack, fine in decided if name(attack) == group]) for group in groups}

    return {
        "all": _share([fine for _, fine in decided]),
        **{field: by(lambda attack, field=field: attack[field]) for field in ("round", "category", "style")},
    }


def _share(fine: Sequence[bool]) -> dict:
    return share(sum(fine), len(fine))
