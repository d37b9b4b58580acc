"""Fields of a config as flags name them: --config.sft.sources.public.limit=1."""

import difflib
import re
from collections.abc import Sequence

from ml_collections import ConfigDict

# A field between dots, or an index in brackets.
_STEP = re.compile(r"\[([^\]]*)\]|([^.\[]+)")


def named_fields(arguments: Sequence[str]) -> list[str]:
    """Returns the fields that a command line sets, such as `sft.sources.public.limit`."""
    flags = [re.match(r"--?(?:no)?config\.([^=]*)", argument) for argument in arguments]
    return [flag[1] for flag in flags if flag]


def what_is_wrong(config: ConfigDict, field: str) -> str:
    """Returns why a config has no such field, and which it has there instead; empty if it has it."""
    here, path = config, "config"
    for index, name in _STEP.findall(field):
        if isinstance(here, ConfigDict):
            if index or name not in here:
                return f"{path} has no {index or name!r}{_nearest(name, here)}; it has: {', '.join(sorted(here))}"
            here, path = here[name], f"{path}.{name}"
        elif isinstance(here, tuple | list):
            if not index.isdigit() or int(index) >= len(here):
                return f"{path} has {len(here)} values, to be set together: --{path}={tuple(here)!r}"
            here, path = here[int(index)], f"{path}[{index}]"
        else:
            return f"{path} is {here!r} and has no fields"
    return "" if field and ".." not in field and not field.endswith(".") else f"{field!r} is not the name of a field"


def _nearest(name: str, here: ConfigDict) -> str:
    close = difflib.get_close_matches(name, here, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
