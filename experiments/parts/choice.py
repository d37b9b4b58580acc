"""What is chosen with an experiment: --config=experiments/<name>.py:<scale> or :<scale>,<data>."""

import dataclasses
import types
from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from experiments.parts.miniature_data import MINIATURE
from experiments.parts.real_data import real_data
from experiments.parts.scales import SCALES
from experiments.parts.sources import Sources

# The data at a scale, by name.
DATA: Mapping[str, Callable[[str], Sources]] = types.MappingProxyType(
    {"miniature": lambda scale: MINIATURE, "real": real_data}
)


@dataclasses.dataclass(frozen=True)
class Choice:
    """A scale, one of SCALES, and the name of the data, one of DATA."""

    scale: str
    data: str

    @property
    def variant(self) -> str:
        """The scale, followed by the data where it is not the scale's default: "tiny", "7b", "tiny-real"."""
        return self.scale if self.data == default_data(self.scale) else f"{self.scale}-{self.data}"


def parse_argument(argument: str) -> Choice:
    """Returns the choice that an argument such as "tiny", "7b", "tiny,real" or "small,miniature" makes.

    Raises:
      ValueError: for an unknown scale or data; the message lists both.
    """
    scale, comma, data = argument.partition(",")
    if scale not in SCALES:
        unknown = f"scale {scale!r}"
    elif comma and data not in DATA:
        unknown = f"data {data!r}"
    else:
        return Choice(scale, data or default_data(scale))
    raise ValueError(
        f"unknown {unknown} in --config=<experiment>.py:{argument}; choose a scale of {', '.join(SCALES)}, and after a "
        f"comma, if it is not to be the scale's default, the data: {', '.join(DATA)}"
    )


def default_data(scale: str) -> str:
    """Returns the data of a scale where none is chosen: the miniature's for tiny, real files for all others."""
    return "miniature" if scale == "tiny" else "real"


def sources_of(config: ConfigDict) -> Sources:
    """Returns the sources of an experiment's data at its scale."""
    return DATA[config.data.name](config.scale)
