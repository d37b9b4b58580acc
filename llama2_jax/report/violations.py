"""Violations by category of risk and style of attack, with their sums, as the page's tables show them."""

from collections.abc import Iterable, Mapping, Sequence

from llama2_jax.evaluation.safety_summary import share

# The heading of a sum.
ALL = "all"


def violation_table(cells: Mapping[str, Mapping[str, Mapping]]) -> dict:
    """Returns a version's violations with sums.

    Args:
      cells: `violations_by` of evaluation/safety_summary.py.

    Returns:
      The names of the `columns`, the attacks and `all`, and the `rows`: {category: {column: share}}, the last one the
      sum over categories. A category that no prompt attacks so has no cell there.
    """
    attacks = _attacks([cells])
    rows = {category: _row(of_category, attacks) for category, of_category in cells.items()}
    if len(rows) > 1:
        rows[ALL] = _totals(cells, attacks)
    return {"columns": [*attacks, ALL], "rows": rows}


def violations_by_version(versions: Sequence[Mapping]) -> dict:
    """Returns each version's violations by style of attack, over all categories, as `violation_table` does.

    Args:
      versions: rows of report.json.
    """
    known = {row["name"]: cells for row in versions if (cells := row["safety_summary"].get("violations_by"))}
    attacks = _attacks(known.values())
    return {"columns": [*attacks, ALL], "rows": {name: _totals(cells, attacks) for name, cells in known.items()}}


def _attacks(tables: Iterable[Mapping[str, Mapping]]) -> list[str]:
    return list(dict.fromkeys(attack for cells in tables for row in cells.values() for attack in row))


def _totals(cells: Mapping[str, Mapping], attacks: Sequence[str]) -> dict[str, dict]:
    columns = {attack: [row[attack] for row in cells.values() if attack in row] for attack in attacks}
    return _row({attack: _sum(found) for attack, found in columns.items() if found}, attacks)


def _row(found: Mapping[str, Mapping], attacks: Sequence[str]) -> dict[str, Mapping]:
    return {**{attack: found[attack] for attack in attacks if attack in found}, ALL: _sum(found.values())}


def _sum(shares: Iterable[Mapping]) -> dict:
    shares = list(shares)
    return share(sum(one["count"] for one in shares), sum(one["of"] for one in shares))
