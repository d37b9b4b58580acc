"""The energy of a run and the carbon dioxide of making it, by the paper's formula (section 2.2.1, table 2)."""

from typing import NamedTuple

# Of LLaMA's report, which Llama 2's table 2 follows: what a data centre draws for each watt of its computers, and
# kilograms of carbon dioxide equivalent a kilowatt hour, the average of the United States.
POWER_USAGE_EFFECTIVENESS = 1.1
CARBON_INTENSITY = 0.385


class Energy(NamedTuple):
    """Kilowatt hours, and kilograms of carbon dioxide equivalent."""

    kilowatt_hours: float
    kilograms: float


def energy(
    device_hours: float,
    watts: float,
    power_usage_effectiveness: float = POWER_USAGE_EFFECTIVENESS,
    carbon_intensity: float = CARBON_INTENSITY,
) -> Energy:
    """Returns the energy of devices that draw the same power all the time.

    It is an upper bound for the devices where `watts` is the most that one draws. Left out, as in the paper: hosts,
    networks and cooling beyond the effectiveness, and making the hardware.

    Args:
      device_hours: of all devices together.
      watts: of one device.
      power_usage_effectiveness: what the data centre draws for each watt of the devices; at least 1.
      carbon_intensity: kilograms of carbon dioxide equivalent a kilowatt hour.
    """
    kilowatt_hours = device_hours * watts / 1000 * power_usage_effectiveness
    return Energy(kilowatt_hours, kilowatt_hours * carbon_intensity)
