"""The sets of the stage safety_sets: what each asks, and what is measured on the answers (sections 4.1 and 4.2.3)."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from llama2_jax.data.bad_line import shown
from llama2_jax.data.content_hash import prompt_hash
from llama2_jax.data.files import find_files
from llama2_jax.evaluation import safety_set_files
from llama2_jax.evaluation.bold import sentiment, without_small_groups
from llama2_jax.evaluation.group_means import ALL
from llama2_jax.evaluation.refusals import detection
from llama2_jax.evaluation.truthfulqa import qa_prompt
from llama2_jax.pipeline.encoding import longest_prompt, read_records
from llama2_jax.pipeline.runtime import Inputs, Runtime, configured_function
from llama2_jax.text.dialogue import encode_prompt
from llama2_jax.text.tokenizer import Tokenizer

# Rows -> true, false or None (not decided) for each.
Judge = Callable[[Sequence[Mapping]], list[bool | None]]


@dataclasses.dataclass(frozen=True)
class SafetySet:
    """What is asked, and what is measured on the answers.

    Attributes:
      name: of the set, and of its part of the stage's config.
      prompts: with `domain`, `group`, `messages` and what the judges read; none if the set is left out.
      measure: of rows, the prompts with `response`, the value of each answer by measure; only what there is a judge of.
      judges: by measure what judges, a function's dotted path.
      one_line: whether the text that a prompt begins ends with the line, as in a list of questions and answers.
      overall: whether the mean over all groups says something.
      small_groups: those left out, see `bold.without_small_groups`.
      too_long: how many prompts leave no room for an answer.
      repeated: how many prompts were the same as another, and are asked once.
      notes: what could not be asked or measured, and which setting changes that.
    """

    name: str
    prompts: Sequence[dict]
    measure: Callable[[Sequence[dict]], dict[str, Sequence[float | bool | None]]]
    judges: Mapping[str, str] = dataclasses.field(default_factory=dict)
    one_line: bool = False
    overall: bool = True
    small_groups: Sequence[dict] = ()
    too_long: int = 0
    repeated: int = 0
    notes: tuple[str, ...] = ()

    @property
    def record(self) -> dict:
        """The set in the stage's results."""
        return {
            "set": self.name,
            "prompts": len(self.prompts),
            "judges": dict(self.judges),
            "too_long": self.too_long,
            "repeated": self.repeated,
            "small_groups": list(self.small_groups),
            "notes": list(self.notes),
        }


def safety_sets(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> list[SafetySet]:
    """Returns the four sets as the stage's config has them; those that are left out have no prompts.

    Raises:
      FileNotFoundError: if a set that is not optional has no file.
      ValueError: if a file has a row that cannot be used.
      ImportError: if there is BOLD and no package for its scores.
    """
    return [make(config, inputs, runtime) for make in (_truthfulqa, _toxigen, _bold, _borderline)]


def encode_set(
    asked: SafetySet, config: ConfigDict, tokenizer: Tokenizer, runtime: Runtime
) -> tuple[SafetySet, list[list[int]]]:
    """Returns a set's prompts that leave room for an answer, and their ids.

    Args:
      asked: the set.
      config: `chat`: whether a prompt is a user's message in the chat format, or the beginning of a text;
        `max_new_tokens`.
      tokenizer: the models'.
      runtime: the stage's.

    Raises:
      ValueError: if no prompt does.
    """
    longest = longest_prompt(config.max_new_tokens, runtime)
    ids = [
        encode_prompt(tokenizer, prompt["messages"])
        if config.chat
        else tokenizer.encode(prompt["messages"][-1]["content"], bos=True)
        for prompt in asked.prompts
    ]
    kept = [index for index, tokens in enumerate(ids) if len(tokens) <= longest]
    if not kept:
        raise ValueError(
            f"{runtime.stage}: none of the {len(ids)} prompts of {asked.name} has at most {longest} tokens, so that an "
            f"answer of max_new_tokens={config.max_new_tokens} fits the context; leave the set out or lower it"
        )
    if too_long := len(ids) - len(kept):
        logging.warning(
            "%s: dropped %d prompts of %s longer than %d tokens", runtime.stage, too_long, asked.name, longest
        )
    fitting = dataclasses.replace(asked, prompts=[asked.prompts[index] for index in kept], too_long=too_long)
    return fitting, [ids[index] for index in kept]


def classifier_quality(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict | None:
    """Returns how the refusal classifier does on labelled answers (`refusals.detection`); None if there are none.

    Precision is higher where most answers refuse, as those to unsafe prompts do. So beside `all` answers, those to the
    prompts that it is used on are measured alone, as `borderline`; None if none of these has a labelled answer.
    """
    part = config.borderline
    if not (part.prompts and part.labelled):
        return None
    asked = {prompt_hash(record["messages"]) for record in read_records(part.prompts, runtime, "prompts")}
    rows = read_records(part.labelled, runtime, "samples")
    called = _judge("borderline.classifier", part.classifier, inputs, runtime)(rows)
    decided = [(bool(one), row) for one, row in zip(called, rows, strict=True)]
    among = [(one, row) for one, row in decided if prompt_hash(row["messages"]) in asked]
    found = {
        name: detection([one for one, _ in pairs], [row.get("label") for _, row in pairs])
        for name, pairs in (("all", decided), ("borderline", among))
        if pairs
    }
    return {"function": part.classifier.function, "borderline": None, **found}


def _truthfulqa(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> SafetySet:
    """Questions behind six question-answer pairs; two judges say whether an answer is true, and informative."""
    part = config.truthfulqa
    files, notes = _files("truthfulqa", part, runtime)
    questions = safety_set_files.evenly(safety_set_files.truthfulqa(files), part.prompts_per_group)
    fields = {"true": "truth", "informative": "informative"}
    judges = {
        measure: judge
        for measure, field in fields.items()
        if (judge := _judge(f"truthfulqa.{field}", part[field], inputs, runtime))
    }

    def measure(rows: Sequence[dict]) -> dict[str, Sequence[bool | None]]:
        answered = [
            {
                "question": row["question"],
                "answer": row["response"].removeprefix("A:").strip(),
                "reference": row["reference"],
            }
            for row in rows
        ]
        found = {name: judge(answered) for name, judge in judges.items()}
        if len(found) == 2:
            found["true_and_informative"] = [
                None if None in both else all(both) for both in zip(*found.values(), strict=True)
            ]
        return found

    prompts = [{**row, "messages": _user(qa_prompt(row["question"]))} for row in questions]
    if prompts and len(judges) < 2:
        notes += (_not_judged(runtime, "truthfulqa", fields.values(), "llama2_jax.evaluation.truthfulqa"),)
    named = {name: part[fields[name]].function for name in judges}
    return SafetySet("truthfulqa", prompts, measure, named, one_line=True, notes=notes)


def _toxigen(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> SafetySet:
    """Lists of sentences about a group, which a model continues; a classifier says whether it is toxic."""
    part = config.toxigen
    files, notes = _files("toxigen", part, runtime)
    prompts = safety_set_files.toxigen(files, part.groups) if files else []
    prompts = [
        {**row, "messages": _user(row["prompt"])} for row in safety_set_files.evenly(prompts, part.prompts_per_group)
    ]
    judge = _judge("toxigen.classifier", part.classifier, inputs, runtime)
    if prompts and judge is None:
        notes += (_not_judged(runtime, "toxigen", ("classifier",), "llama2_jax.evaluation.toxicity"),)
    return SafetySet(
        "toxigen", prompts, lambda rows: {"toxic": judge(rows)} if judge else {},
        {"toxic": part.classifier.function} if judge else {}, one_line=True, notes=notes,
    )  # fmt: skip


def _bold(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> SafetySet:
    """Beginnings of sentences about groups, which a model continues; how positive the whole sounds is measured."""
    del inputs
    part = config.bold
    files, notes = _files("bold", part, runtime)
    kept, small = without_small_groups(safety_set_files.bold(files), part.fewest_prompts)
    if files and not kept:
        raise ValueError(
            f"{runtime.stage}: every group of BOLD has fewer than bold.fewest_prompts={part.fewest_prompts} prompts"
        )
    if kept:
        sentiment([])  # without its package the stage ends here, and not when all has been sampled
    prompts = [
        {**row, "messages": _user(row["prompt"])} for row in safety_set_files.evenly(kept, part.prompts_per_group)
    ]
    return SafetySet(
        "bold", prompts, lambda rows: {"sentiment": sentiment([f"{row['prompt']} {row['response']}" for row in rows])},
        {"sentiment": "llama2_jax.evaluation.bold.sentiment"}, overall=False, small_groups=small, notes=notes,
    )  # fmt: skip


def _borderline(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> SafetySet:
    """Harmless prompts that sound unsafe; a classifier says whether an answer refuses, which is a false refusal."""
    part = config.borderline
    records = read_records(part.prompts, runtime, "prompts") if part.prompts else []
    # At so low a temperature a prompt that the sources repeat has the same answer again.
    distinct: dict[str, dict] = {}
    for record in records:
        distinct.setdefault(prompt_hash(record["messages"]), record)
    prompts = [
        {"domain": "", "group": record["category"] or ALL, "messages": record["messages"]}
        for record in distinct.values()
    ]
    judge = _judge("borderline.classifier", part.classifier, inputs, runtime)
    return SafetySet(
        "borderline", prompts, lambda rows: {"refused": judge(rows)}, {"refused": part.classifier.function},
        repeated=len(records) - len(prompts),
    )  # fmt: skip


def _files(name: str, part: ConfigDict, runtime: Runtime) -> tuple[list[epath.Path], tuple[str, ...]]:
    """Returns a set's files; none, and why, if it is left out."""
    if not part.files:
        return [], ()
    try:
        return find_files(part.files, runtime.data_root), ()
    except FileNotFoundError as error:
        setting = f"{runtime.stage}.{name}"
        if not part.optional:
            raise FileNotFoundError(
                f"{error}; config.{setting}.files names it. If it is empty, or config.{setting}.optional is true, the "
                "set is left out"
            ) from error
        logging.warning("%s is left out: %s", setting, error)
        return [], (f"{name} is left out: {error}",)


def _judge(setting: str, part: ConfigDict, inputs: Inputs, runtime: Runtime) -> Judge | None:
    """Returns a judge or classifier that a setting names, whose values are checked; None if it names none."""
    if not part.function:
        return None
    function = configured_function(part, inputs, runtime)

    def judge(rows: Sequence[Mapping]) -> list[bool | None]:
        values = function(rows)
        right = isinstance(values, list) and all(value is None or isinstance(value, bool) for value in values)
        if not right or len(values) != len(rows):
            raise ValueError(
                f"config.{runtime.stage}.{setting}.function={part.function} returned {shown(values)} for {len(rows)} "
                "rows; wanted a list with true, false or None for each"
            )
        return values

    return judge


def _not_judged(runtime: Runtime, name: str, fields: Iterable[str], module: str) -> str:
    settings = " and ".join(f"config.{runtime.stage}.{name}.{field}.function" for field in fields)
    return f"{name}: answers are written and not all judged: {settings} may name a function, such as those of {module}"


def _user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]
