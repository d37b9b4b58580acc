"""What a run cost: device hours by kind of device, their energy and its carbon dioxide (table 2)."""

from collections.abc import Mapping, Sequence

from llama2_jax.evaluation.energy import energy
from llama2_jax.sizing.chips import CHIPS


def ledger(records: Sequence[Mapping]) -> list[dict]:
    """Returns a row for each kind and number of devices on which stages ran, in the order of their first stage.

    Args:
      records: stage.json of every stage; one that does not say on which devices it ran is left out. The seconds of a
        stage that was cut off and went on are those since it went on.

    Returns:
      Rows of the `kind`, the `devices` and `hours`, `device_hours`, and `watts`, `kilowatt_hours` and `kilograms` of
      carbon dioxide equivalent, which are None where nobody states what power the devices draw (a CPU, a TPU).
    """
    seconds: dict[tuple[str, int], float] = {}
    for record in records:
        if record.get("devices"):
            place = record["devices"]["kind"], record["devices"]["count"]
            seconds[place] = seconds.get(place, 0.0) + (record.get("seconds") or 0.0)
    return [_row(kind, count, total / 3600) for (kind, count), total in seconds.items()]


def _row(kind: str, count: int, hours: float) -> dict:
    watts = CHIPS[kind].watts if kind in CHIPS else None
    used = None if watts is None else energy(count * hours, watts)
    return {
        "kind": kind,
        "devices": count,
        "hours": hours,
        "device_hours": count * hours,
        "watts": watts,
        "kilowatt_hours": used and used.kilowatt_hours,
        "kilograms": used and used.kilograms,
    }
