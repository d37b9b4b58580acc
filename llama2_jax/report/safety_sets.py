"""The tables of the safety sets: a row for each group and measure, a column for each version."""

from collections.abc import Mapping, Sequence

# A table with more rows is folded away.
SHORT = 6


def safety_set_tables(results: Mapping) -> list[dict]:
    """Returns the sets, each with its table.

    Args:
      results: of the stage: `groups`, a row for each version, set, group and measure, and `sets`.

    Returns:
      What `sets` says of each, and its `measures`, the `versions`, whether the table is `short`, and its `rows`: each
      with `domain`, `group`, `measure` and a cell for each version, a row of `groups` or None.
    """
    return [
        {**of_set, **_table([row for row in results["groups"] if row["set"] == of_set["set"]])}
        for of_set in results["sets"]
    ]


def _table(found: Sequence[Mapping]) -> dict:
    versions = _distinct(found, "version")
    cells = {(row["domain"], row["group"], row["measure"], row["version"]): row for row in found}
    rows = [
        {"domain": key[0], "group": key[1], "measure": key[2], "cells": [cells.get((*key, one)) for one in versions]}
        for key in dict.fromkeys(key[:3] for key in cells)
    ]
    return {
        "measures": _distinct(found, "measure"), "versions": versions, "rows": rows, "short": len(rows) <= SHORT,
    }  # fmt: skip


def _distinct(rows: Sequence[Mapping], field: str) -> list[str]:
    return list(dict.fromkeys(row[field] for row in rows))
