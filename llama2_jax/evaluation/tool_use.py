"""What answers to word problems reach without tools and with them (section 5.1; table 15)."""

from collections.abc import Mapping, Sequence

from llama2_jax.evaluation.binomial import counted_share


def tool_use(rows: Sequence[Mapping]) -> dict:
    """Returns the shares of a version's answers to a set of questions.

    Args:
      rows: with `right`, whether the final number is; `finished`; and `calls`, each with its `result` and its
        `problem`, "" if there was none.

    Returns:
      questions: how many.
      right: of the questions, those with the right final number.
      finished: of the questions, those whose answer ended by itself.
      called: of the questions, those with a call in their answer, well-formed or not.
      well_formed: of the calls, those that named a tool, had a query, and were written to their end.
      answered: of the calls, those that a tool had a result for.
      right_calls: of the answers with a call, those whose last one has the right result (`right_call`).
    """
    calls = [call for row in rows for call in row["calls"]]
    called = [row for row in rows if row["calls"]]
    return {
        "questions": len(rows),
        "right": share([row["right"] for row in rows]),
        "finished": share([row["finished"] for row in rows]),
        "called": share([bool(row["calls"]) for row in rows]),
        "well_formed": share([call["problem"] not in ("malformed", "unfinished") for call in calls]),
        "answered": share([not call["problem"] for call in calls]),
        "right_calls": share([row["right_call"] for row in called]),
    }


def share(flags: Sequence[bool]) -> dict | None:
    """Returns the `share` that is true, with its 95 % `interval`, `of` how many; None of none."""
    if not flags:
        return None
    return {**counted_share(flags), "of": len(flags)}
