"""Whether answers fit the year in which a question is posed (section 5.1; figure 22)."""

import re
from collections.abc import Mapping, Sequence

from llama2_jax.evaluation.answer_overlap import normalized
from llama2_jax.evaluation.binomial import counted_share

# How one says that something is still to come. The paper's authors judged by eye; these phrases are a substitute.
NOT_YET = re.compile(
    r"\b(not (yet )?(happened|taken place|occurred)|hasn'?t (yet )?(happened|taken place|occurred)|not yet|"
    r"no (information|knowledge) (about|of)|future event|do(es)? not (yet )?exist)\b",
    re.IGNORECASE,
)


def answers_in_time(rows: Sequence[Mapping]) -> list[dict]:
    """Returns for each row whether its `response` is `right`, and whether it says that the event is to come, `not_yet`.

    Right is "not yet" before the event, and from its year on the row's `answer` somewhere in the response. Without an
    `answer` it is right not to say "not yet".
    """
    found = []
    for row in rows:
        not_yet = NOT_YET.search(row["response"]) is not None
        early = row.get("query_year") is not None and row["query_year"] < row["event_year"]
        named = normalized(row.get("answer") or "") in normalized(row["response"])
        found.append({"right": not_yet if early else named and not not_yet, "not_yet": not_yet})
    return found


def by_gap(rows: Sequence[Mapping]) -> list[dict]:
    """Returns the shares of answers that are `right` and that say `not_yet`, for each gap and over all.

    Args:
      rows: with `right`, `not_yet`, `event_year`, and `query_year` if it was told.

    Returns:
      For each gap, the query's year less the event's, in order; then with gap None those of all rows. `in_time` is the
      share that say "not yet" exactly where it is true; None where the year of the question was not told.
    """
    gaps = sorted({row["query_year"] - row["event_year"] for row in rows if row.get("query_year") is not None})
    of = {gap: [row for row in rows if _gap(row) == gap] for gap in gaps}
    return [{"gap": gap, **_shares(some)} for gap, some in (*of.items(), (None, rows))]


def best_by_one_year(rows: Sequence[Mapping]) -> dict[str, float] | None:
    """Returns how often one is right on whether the event has happened who knows only one of the two years.

    By the field that is known; None where no row has a `query_year`.
    """
    dated = [row for row in rows if row.get("query_year") is not None]
    return {field: _best_by(dated, field) for field in ("query_year", "event_year")} if dated else None


def _best_by(rows: Sequence[Mapping], field: str) -> float:
    early: dict[int, list[bool]] = {}
    for row in rows:
        early.setdefault(row[field], []).append(row["query_year"] < row["event_year"])
    return sum(max(sum(some), len(some) - sum(some)) for some in early.values()) / len(rows)


def _gap(row: Mapping) -> int | None:
    return None if row.get("query_year") is None else row["query_year"] - row["event_year"]


def _shares(rows: Sequence[Mapping]) -> dict:
    shares = {name: counted_share([row[name] for row in rows]) for name in ("right", "not_yet")}
    early = [row["query_year"] < row["event_year"] for row in rows if row.get("query_year") is not None]
    decided = [row["not_yet"] == one for row, one in zip(rows, early, strict=True)] if len(early) == len(rows) else []
    return {"questions": len(rows), **shares, "in_time": counted_share(decided) if decided else None}
