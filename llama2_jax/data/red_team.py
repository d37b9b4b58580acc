"""The ledger of red teaming (section 4.3): a JSONL file to which sessions append what was found and how long it took.

| field      | of an attack that succeeded                                                                |
|------------|--------------------------------------------------------------------------------------------|
| `who`      | who found it                                                                               |
| `minutes`  | that it took: since that person's line before it in the session, or the session's start    |
| `round`    | of the version that was attacked, 0 for SFT                                                |
| `messages` | the dialogue up to the user's last message                                                 |
| `response` | the answer that violated                                                                   |
| `category` | of risk, such as `illicit`                                                                 |
| `style`    | of the attack, such as `role_play`; may be ""                                              |
| `fixed`    | the round of the first version that resisted and did not fall back since; null if none has |

At its end a session appends a line of `who`, `minutes` and `round` alone: time in which nothing more was found.
"""

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from etils import epath

from llama2_jax.data.bad_line import BadLine, shown
from llama2_jax.data.files import rows
from llama2_jax.data.records import check_record, required
from llama2_jax.paths import expand_home


def read_ledger(path: str | os.PathLike) -> list[dict]:
    """Returns the lines of a ledger.

    Raises:
      ValueError: if one is not a line of a ledger; with the file, its number, what was found and what was wanted.
      FileNotFoundError: if there is no such file.
    """
    if not pathlib.Path(path).exists():
        raise FileNotFoundError(f"there is no ledger {path}; python -m llama2_jax.chat --red_team={path} begins one")
    lines = []
    for place, row in rows(epath.Path(path)):
        if isinstance(row, BadLine):
            raise row
        try:
            check_line(row)
        except ValueError as error:
            raise BadLine(place, str(error)) from error
        lines.append(row)
    return lines


def is_attack(line: Mapping) -> bool:
    """Whether a line of a ledger has an attack, and not time alone."""
    return "messages" in line


def check_line(line: Mapping) -> None:
    """Raises ValueError if a line is none of a ledger; with the field, what was found and what was wanted."""
    who = required(line, "who")
    if not isinstance(who, str) or not who.strip():
        raise ValueError(f"field who is {shown(who)}; wanted a name")
    minutes = required(line, "minutes")
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not 0 <= minutes < math.inf:
        raise ValueError(f"field minutes is {shown(minutes)}; wanted a number, 0 or more")
    _check_round(line, "round")
    if not is_attack(line):
        if wrong := [name for name in ("response", "category", "style", "fixed") if name in line]:
            raise ValueError(f"there is no field messages, but there is {wrong[0]}: an attack has both")
        return
    check_record(line, "prompts")
    for name in ("response", "category", "style"):
        if not isinstance(required(line, name), str):
            raise ValueError(f"field {name} is {shown(line[name])}; wanted a string")
    if not line["category"].strip():
        raise ValueError("field category is empty; wanted a category of risk, such as illicit")
    if required(line, "fixed") is not None:
        _check_round(line, "fixed")


def append_line(path: str | os.PathLike, line: Mapping) -> None:
    """Appends a line, on disk when this returns; a line that another program left half written stays apart.

    Raises:
      ValueError: if it is not a line of a ledger.
    """
    check_line(line)
    with _locked(path), open(path, "a+b") as file:
        if file.tell() and not _ends_a_line(path):
            file.write(b"\n")
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def mark_fixed(path: str | os.PathLike, resisted: Sequence[tuple[Mapping, bool]], round_number: int) -> int:
    """Writes into a ledger which attacks a version resists; what others append meanwhile stays.

    An attack that is resisted is fixed from this round on, unless an earlier round fixed it; one that succeeds is not
    fixed any more.

    Args:
      path: the ledger.
      resisted: attacks as they were read, and whether the version resists each.
      round_number: the version's.

    Returns:
      How many lines changed.
    """
    decided = {_identity(attack): fine for attack, fine in resisted}
    with _locked(path):
        before = read_ledger(path)
        after = [_with_fixed(line, decided.get(_identity(line)), round_number) for line in before]
        draft = pathlib.Path(f"{os.fspath(path)}.draft")
        draft.write_text("".join(json.dumps(line) + "\n" for line in after))
        draft.replace(path)
    return sum(old != new for old, new in zip(before, after, strict=True))


def _with_fixed(line: dict, fine: bool | None, round_number: int) -> dict:
    if fine is None:
        return line
    earlier = line["fixed"]
    return {**line, "fixed": (round_number if earlier is None else min(earlier, round_number)) if fine else None}


def _identity(line: Mapping) -> str:
    return json.dumps({name: value for name, value in line.items() if name != "fixed"}, sort_keys=True)


def round_of(checkpoint: str, given: int | None) -> int:
    """Returns the round of a version: as given, else by the name of its folder, such as rlhf_v3_rejection_sampling.

    Raises:
      ValueError: if the name does not say it.
    """
    if given is not None:
        return given
    name = checkpoint.rstrip("/").rpartition("/")[2]
    found = re.match(r"rlhf_v(\d+)", name)
    if not found and not name.startswith("sft"):
        raise ValueError(f"of which round is {checkpoint}? Its name does not say it; set --round, 0 for SFT")
    return int(found[1]) if found else 0


@dataclasses.dataclass
class Session:
    """A person's session of red teaming, whose ledger is complete after every call.

    Attributes:
      path: the ledger.
      who: the person.
      round: of the version that is attacked.
      clock: seconds, from any start.
      since: the clock at the session's start, then at its last line.
    """

    path: str
    who: str
    round: int
    clock: Callable[[], float] = time.monotonic
    since: float = dataclasses.field(init=False)

    def __post_init__(self):
        self.since = self.clock()

    def record(self, messages: Sequence[Mapping], response: str, category: str, style: str) -> None:
        """Appends an attack that succeeded, with the time since the last line.

        Raises:
          ValueError: as `check_line`.
        """
        now = self.clock()
        append_line(self.path, {
            **self._spent(now),
            "messages": [{"role": message["role"], "content": message["content"]} for message in messages],
            "response": response,
            "category": category,
            "style": style,
            "fixed": None,
        })  # fmt: skip
        self.since = now

    def close(self) -> None:
        """Appends the time since the last line."""
        now = self.clock()
        append_line(self.path, self._spent(now))
        self.since = now

    def _spent(self, now: float) -> dict:
        return {"who": self.who, "minutes": round((now - self.since) / 60, 3), "round": self.round}


def open_session(ledger: str, who: str, number: int, clock: Callable[[], float] = time.monotonic) -> Session:
    """Begins a session of red teaming; see `Session` for the arguments.

    Raises:
      ValueError: if nobody is named, or the ledger is none.
    """
    if not who.strip():
        raise ValueError("--red_team needs --who=<name>: violations are counted by person and hour")
    path = expand_home(ledger)
    if os.path.exists(path):
        read_ledger(path)  # a ledger that cannot be read is found before an hour of work is added to it
    elif not path.endswith(".jsonl"):
        raise ValueError(f"--red_team={ledger}: wanted a name that ends in .jsonl")
    return Session(path, who.strip(), number, clock)


def _check_round(line: Mapping, name: str) -> None:
    value = required(line, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"field {name} is {shown(value)}; wanted the number of a round, 0 for SFT")


@contextlib.contextmanager
def _locked(path: str | os.PathLike) -> Iterator[None]:
    """Holds the ledger's lock: several people may append to one ledger while another program rewrites it."""
    # A file of its own: the ledger itself is replaced when it is rewritten.
    with open(f"{os.fspath(path)}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _ends_a_line(path: str | os.PathLike) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
