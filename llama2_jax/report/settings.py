"""The stages' settings, and those in which rounds of the same stage differ."""

from collections.abc import Mapping, Sequence


def differing_settings(report: Mapping, records: Mapping[str, Mapping]) -> list[dict]:
    """Returns the settings in which the rounds differ, for the stages that every round has.

    Args:
      report: the content of report.json.
      records: stage.json of every stage, by name.

    Returns:
      Entries {title, rounds, rows}; a row is (field, one value per round).
    """
    groups = {
        "Annotation": report["annotations"],
        "Helpfulness reward model": [row for row in report["reward_models"] if row["kind"] == "helpfulness"],
        "Safety reward model": [row for row in report["reward_models"] if row["kind"] == "safety"],
        "Rejection sampling": report["rejection_sampling"],
    }
    tables = []
    for title, rows in groups.items():
        flat = [flattened(settings_of(row["stage"], records[row["stage"]])) for row in rows]
        fields = list(dict.fromkeys(field for settings in flat for field in settings))
        different = [
            (field, [settings.get(field, "") for settings in flat])
            for field in fields
            if field != "round" and len({settings.get(field, "") for settings in flat}) > 1
        ]
        if different:
            tables.append({"title": title, "rounds": [row["round"] for row in rows], "rows": different})
    return tables


def settings_of(name: str, record: Mapping) -> dict:
    """Returns a stage's own part of its configuration."""
    return record.get("config", {}).get(name) or {}


def flattened(tree: object, prefix: str = "") -> dict[str, str]:
    """Returns a tree of settings as {dotted path: value as text}."""
    if isinstance(tree, Mapping):
        return {
            path: value
            for name, branch in tree.items()
            for path, value in flattened(branch, f"{prefix}.{name}" if prefix else str(name)).items()
        }
    if isinstance(tree, Sequence) and not isinstance(tree, str):
        return {prefix: ", ".join(map(str, tree))}
    return {prefix: str(tree)}
