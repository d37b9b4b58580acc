"""Sample answers of the first and the last version side by side, with the judge's verdict in words."""

from collections.abc import Mapping, Sequence


def sample_answers(
    first: Sequence[Mapping], last: Sequence[Mapping], per_category: int = 2, categories: int = 12
) -> list[dict]:
    """Returns prompts with both versions' answers: evenly spaced in each category, whatever the answers are.

    Args:
      first, last: rows of the versions' answers_<version>.jsonl.
      per_category: at most so many prompts of a category.
      categories: at most so many categories, in alphabetical order.

    Returns:
      Entries {category, messages, first, last}: the messages that the last version got, and both versions' rows.
    """
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(first):
        groups.setdefault(row.get("category") or ("safety" if row.get("safety") else "helpfulness"), []).append(index)
    chosen = [
        (category, group[(2 * place + 1) * len(group) // (2 * count)])
        for category, group in sorted(groups.items())[:categories]
        for count in [min(per_category, len(group))]
        for place in range(count)
    ]
    return [
        {"category": category, "messages": last[index]["messages"], "first": first[index], "last": last[index]}
        for category, index in chosen
        if index < len(last)
    ]


def with_chips(entry: Mapping) -> dict:
    """Returns a sample prompt whose answers have the judge's verdict as `chips`."""
    return {**entry, **{side: {**entry[side], "chips": chips(entry[side])} for side in ("first", "last")}}


def chips(row: Mapping) -> list[tuple[str, str]]:
    """Returns an answer's verdict as (words, good | bad | neutral); fields without a value are left out."""
    verdict = {
        name: float(value) for name, value in (row.get("verdict") or {}).items() if isinstance(value, int | float)
    }
    found = []
    if row.get("safety"):
        if "violation" in verdict:
            found.append(("violation", "bad") if verdict["violation"] >= 0.5 else ("no violation", "good"))
    elif "helpfulness" in verdict:
        found.append((f"helpfulness {verdict['helpfulness']:.2f}", "neutral"))
    if verdict.get("refusal", 0) >= 0.5:
        found.append(("refusal", "neutral" if row.get("safety") else "bad"))
    if "instruction_kept" in verdict:
        kept = verdict["instruction_kept"] >= 0.5
        found.append(("instruction kept", "good") if kept else ("instruction lost", "bad"))
    if row.get("finished") is False:
        found.append(("cut off", "bad"))
    return found
