"""What a source of records may say: where they are, in which format, which of them are read.

A source in a config is a mapping with the fields of `Source`:

    {"path": "sft/dolly.jsonl.gz", "format": "dialogues",
     "columns": {"user": "instruction", "context": "context", "assistant": "response"}}
    {"path": "hh_rlhf/*/train.jsonl.gz", "format": "hh_rlhf", "on_bad_line": "skip",
     "defaults": {"domain": "helpfulness"}, "part": (0.0, 0.9)}
    {"path": "hf://datasets/databricks/databricks-dolly-15k/*.jsonl", "format": "dialogues", "columns": {...}}
    {"function": "my_package.my_module.my_dialogues", "arguments": {"count": 1000}, "format": "dialogues"}
"""

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence

from llama2_jax.data.conversions import readable_as
from llama2_jax.data.formats import check_columns, kind_of
from llama2_jax.data.records import CONVERSATIONS, KINDS
from llama2_jax.hub.address import is_address

# What a config may say in a field's place by mistake is refused by its type.
_TYPES = {
    str: ("a string", ("function", "format", "kind", "text_unit", "on_bad_line")),
    (str, list, tuple): ("a path, a glob or a list of them", ("path",)),
    Mapping: ("a mapping, as {name: value}", ("hub", "arguments", "prepare", "columns", "where", "defaults")),
    bool: ("true or false", ("optional",)),
}


@dataclasses.dataclass(frozen=True)
class Source:
    """One source of records.

    Attributes:
      path: a file, a glob or several of them, relative to the data root: .jsonl, .json, .csv, .txt, each also .gz, and
        .parquet; or files on the Hugging Face hub, hf://datasets/<org>/<name>[@<revision>]/<path>. A path that exists
        is that file, also with a `[` in its name; `~` is the home folder.
      hub: where the set is published: the `path`, and other fields that differ there. Read where the data root has no
        file at `path`, nor a copy of the published files in the folder <org>/<name>. An empty path turns it off.
      optional: whether to do without the source where it is neither in the data root nor on the hub.
      function: instead of a path, a function's dotted path; called as function(seed=seed, **arguments), it returns a
        list of records.
      arguments: for the function.
      format: of a row: a kind (records.py; the project's own fields), alpaca, sharegpt, openai_chat, hh_rlhf, or raw
        (left unchanged; checked as what the stage needs).
      kind: the kind of records wanted, if it is not the format's: prompts from dialogues or from preferences, say.
      prepare: a function by its dotted path, {"function": .., "arguments": {..}}: called as function(record,
        **arguments) with each record as its format reads it, it returns one of the wanted kind, or None to omit it.
      columns: for each of our fields its column in the file (formats.to_record).
      where: for columns the value that they must have; other rows are left out.
      defaults: fields for records that lack them, also where `columns` names a column that a row does not have.
      text_unit: whether a text file is one record ("file") or has one a line ("line").
      weight: in pretraining and for the tokenizer the source's part of the mixture, relative to the others'; in
        fine-tuning how often each of its dialogues is seen in an epoch. Other stages read a source as it is, and refuse
        a weight other than 1.
      limit: the most records to take, from the beginning; None for all.
      part: (begin, end) within [0, 1]: the records with the hash of their opening in this range. Parts that do not
        overlap share no record, and conversations with the same first user turn are always in the same part.
      on_bad_line: "raise" at a line without a usable record, or "skip" it, which is counted and logged with its place.
    """

    path: str | Sequence[str] = ""
    hub: Mapping[str, object] = dataclasses.field(default_factory=dict)
    optional: bool = False
    function: str = ""
    arguments: Mapping[str, object] = dataclasses.field(default_factory=dict)
    format: str = ""
    kind: str = ""
    prepare: Mapping[str, object] = dataclasses.field(default_factory=dict)
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    where: Mapping[str, object] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, object] = dataclasses.field(default_factory=dict)
    text_unit: str = "file"
    weight: float = 1.0
    limit: int | None = None
    part: tuple[float, float] = (0.0, 1.0)
    on_bad_line: str = "raise"

    def __post_init__(self):
        for types, (wanted, names) in _TYPES.items():
            for name in names:
                if not isinstance(getattr(self, name), types):
                    raise ValueError(f"{name}={getattr(self, name)!r}: wanted {wanted}")
        if bool(self.path) == bool(self.function):
            raise ValueError(f"a source needs either a path or a function: {self}")
        if (self.hub or self.optional) and not self.path:
            raise ValueError(f"hub and optional belong to a path, for where it has no files: {self}")
        if self.hub and self.hub.get("path") != "" and not is_address(self.hub.get("path")):
            raise ValueError(f"hub={dict(self.hub)}: wanted its path, hf://datasets/<org>/<name>[@<revision>]/<path>")
        if self.path and self.arguments:
            raise ValueError(f"arguments={dict(self.arguments)}: they are for a function, and this source has a path")
        check_columns(self.format, self.columns)  # raises if the format is unknown
        if self.kind and self.kind not in KINDS:
            raise ValueError(f"unknown kind {self.kind!r}; choose one of {', '.join(KINDS)}")
        if self.prepare and not isinstance(self.prepare.get("function"), str):
            raise ValueError(f"prepare={dict(self.prepare)}: wanted its function, a dotted path, and perhaps arguments")
        if not self.prepare and self.kind not in ("", kind_of(self.format), *readable_as(kind_of(self.format))):
            raise ValueError(f"records of format {self.format!r} cannot be read as kind={self.kind!r}")
        if self.on_bad_line not in ("raise", "skip"):
            raise ValueError(f'on_bad_line={self.on_bad_line!r}: choose "raise" or "skip"')
        if self.text_unit not in ("file", "line"):
            raise ValueError(f'text_unit={self.text_unit!r}: choose "file" or "line"')
        if self.text_unit == "line" and self.function:
            raise ValueError('text_unit="line" is for text files, and this source has a function')
        if not (isinstance(self.part, list | tuple) and len(self.part) == 2 and all(map(_is_number, self.part))):
            raise ValueError(f"part={self.part!r}: wanted (begin, end) with 0 <= begin < end <= 1")
        begin, end = self.part
        if not 0 <= begin < end <= 1:
            raise ValueError(f"part={self.part}: wanted (begin, end) with 0 <= begin < end <= 1")
        if self.limit is not None and (type(self.limit) is not int or self.limit < 1):
            raise ValueError(f"limit={self.limit!r}: wanted a positive whole number, or None for all records")
        if not _is_number(self.weight) or self.weight < 0:
            raise ValueError(f"weight={self.weight!r}: wanted a number, 0 or more")


def as_source(description: Source | Mapping) -> Source:
    """Returns a source from a mapping such as a config's.

    Raises:
      ValueError: if a field is unknown or has a wrong value.
    """
    if isinstance(description, Source):
        return description
    fields = plain(description)
    known = [field.name for field in dataclasses.fields(Source)]
    for name in fields:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"a source has no field {name!r}{hint}; it has {', '.join(known)}")
    return Source(**fields)


def for_kind(description: Source | Mapping, kind: str, name: str) -> Source:
    """Returns a source for a reader of a kind; what is raw becomes that kind.

    Raises:
      ValueError: if the source has records of another kind, or its fields are wrong.
    """
    source = as_source(description)
    own = source.kind or kind_of(source.format)
    if kind in ("raw", own) or (kind == "user_turns" and own in CONVERSATIONS):
        return source
    if own == "raw":
        return dataclasses.replace(source, kind=kind)
    hint = f'; set its kind="{kind}"' if kind in readable_as(kind_of(source.format)) else ""
    raise ValueError(f"source {name!r} has records of kind {own!r} and {kind!r} is wanted here{hint}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def plain(value: object) -> object:
    """Returns mappings of any type (such as a config's) as dicts."""
    if hasattr(value, "items"):
        return {name: plain(item) for name, item in value.items()}
    return value
