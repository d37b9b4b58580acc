"""A rehearsal of an experiment, --rehearse: every stage as configured, on a small model and fewer steps and records.

What a run of weeks would stumble over on its way (a file of another format, a split that leaves nothing to train on, a
stage that cannot read the one before) shows in minutes on a laptop. Only sizes change, by the rules of this file, which
keep the relations between them; paths, formats, schedules, mixes, rounds and all other fields stay as they are.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

from etils import epath
from ml_collections import ConfigDict

from llama2_jax import recipe
from llama2_jax.data.counts import count_records, most_records
from llama2_jax.data.source import as_source
from llama2_jax.models.config import ModelConfig, parameter_count
from llama2_jax.pipeline.stage_files import write_json

# Numbers of rows: what a batch has, what is read, sampled, compared, held out and kept. All are divided alike, so that
# what is larger than another number stays so. Batches have 4 rows at least: a mesh splits them twice, once for
# the devices and once for the accumulation of gradients.
ROWS = 64
LEAST_BATCH = 4
BATCHES = ("batch_size", "minibatch_size", "pairs_per_batch", "prompts_per_batch")
ROW_FIELDS = (
    *BATCHES, "test_comparisons", "judged_answers", "sweep_prompts", "bag_size", "limit", "human_comparisons",
)  # fmt: skip
# The most of a source: records, or of text documents. So stages have fewer steps than in the real run, and of a source
# with a limit above ROWS * RECORDS a larger share is held out.
RECORDS, DOCUMENTS = 32, 8
# Lengths in tokens are divided by at most LENGTHS, so that the context and the rows of every training keep at least
# ROW_TOKENS. Where they are divided, stages leave out what does not fit: it may fit in the real run.
LENGTHS, ROW_TOKENS = 8, 320
LENGTH_FIELDS = ("max_length", "length", "answer_tokens", "max_new_tokens", "logits_chunk")
# A stage whose steps are configured takes so many; all that it counts in steps is divided by the same number.
STEPS = 6
STEP_FIELDS = ("steps", "iterations")
COUNTED_IN_STEPS = (
    *STEP_FIELDS, "warmup_steps", "evaluate_every", "save_every", "log_every", "critic_warmup_iterations",
)  # fmt: skip
# At most.
CAPS = {
    "samples_per_prompt": 2,
    "sweep_samples_per_prompt": 2,
    "accumulation": 2,
    "held_out_batches": 2,
    "max_characters": 2_000_000,  # of the text that the tokenizer learns from
    "generation_rows": 16,
    "tasks": 32,  # that a teacher writes
    "calls_per_round": 4,
    "most_calls": 8,
    "scoring_tokens": 1024,
}
# Where 0 is all: documents of a benchmark, word problems, prompts about a group.
OF_EACH, MOST_OF_EACH = ("documents_per_task", "questions_per_task", "prompts_per_group"), 2
LAYERS, KV_HEADS, VOCABULARY, WIDTH = 2, 2, 2048, 64


@dataclasses.dataclass(frozen=True)
class Change:
    """A field of the configuration that a rehearsal changes."""

    field: str
    real: object
    rehearsed: object


@dataclasses.dataclass(frozen=True)
class Rehearsal:
    """An experiment that is ready to be rehearsed.

    Attributes:
      config: the configuration to run.
      changes: every field in which it differs from the real one.
      untried: what the real run does that the rehearsal does not, a sentence each.
    """

    config: ConfigDict
    changes: tuple[Change, ...]
    untried: tuple[str, ...]


def rehearse(config: ConfigDict, until: str = "") -> Rehearsal:
    """Turns an experiment's sizes down.

    Raises:
      RecipeError: where the real run would be refused too.
    """
    real = recipe.with_given(config)
    recipe.validate(real)
    for name in recipe.stages_until(real, until):
        recipe.check_stage(real, name, most_records)
    small, given = _without_given_models(config.copy_and_resolve_references())
    _shrink_model(small)
    for name in small.stages:
        _shrink_steps(small[name])
    _shrink_fields(small, _lengths_divisor(small))
    small.mesh.update({axis: min(size, 2) for axis, size in small.mesh.items()})
    changes = tuple(_changes(config.copy_and_resolve_references(), small))
    return Rehearsal(small, changes, (*_untried(real, small), *given))


def shortages(config: ConfigDict, until: str = "") -> list[str]:
    """Reads the data of the real run and returns what would not work out with it, a sentence each.

    `rehearse` checks the configured numbers; here the records are counted that the sources have, of all stages whose
    numbers depend on them. A source that cannot be read is left to its stage, which says what is wrong with it.
    """
    real = recipe.with_given(config)
    count = count_records(real.data.root, real.seed)
    found = []
    for name in recipe.stages_until(real, until):
        try:
            recipe.check_stage(real, name, count)
        except recipe.RecipeError as error:
            found.append(f"with the files as they are the real run would stop: {error}")
        except (OSError, ValueError):
            continue
    return found


def devices(config: ConfigDict) -> int:
    """Returns how many devices make every axis of the experiment's mesh that is split 2 wide."""
    return math.prod(1 if size == 1 else 2 for size in config.mesh.values())


def main(config: ConfigDict, workdir: str, until: str, redo: str, **options) -> dict[str, dict]:
    """Rehearses an experiment in a workdir, and prints what was changed, what was not tried and what would go wrong.

    Args:
      config, workdir, until, redo: as for recipe.run; the full list of changes is written to rehearsal.json there.
      **options: more of recipe.run's.
    """
    rehearsal = rehearse(config, until)
    print(summary(rehearsal, f"{config.experiment}:{config.get('variant', config.scale)}"), flush=True)
    write_json(epath.Path(workdir) / "rehearsal.json", dataclasses.asdict(rehearsal) | {"config": None})
    records = recipe.run(rehearsal.config, workdir, until, redo, **options)
    warnings = shortages(config, until)
    print("\n".join([f"Rehearsed {len(records)} stages: all of them end, and each can read what it needs.", *warnings]))
    return records


def summary(rehearsal: Rehearsal, experiment: str) -> str:
    """Returns what is said of a rehearsal before it begins: what it changes, and what it does not try."""
    kinds: dict[str, list[Change]] = {}
    for change in rehearsal.changes:
        kinds.setdefault(_kind(change.field), []).append(change)
    return "\n".join([
        f"A rehearsal of {experiment}. It changes, and nothing else (all fields are in rehearsal.json):",
        *(f"  {kind}: {_examples(changes)}" for kind, changes in kinds.items()),
        "It does not try:",
        *(f"  {sentence}" for sentence in rehearsal.untried),
    ])  # fmt: skip


def _kind(field: str) -> str:
    name = field.rpartition(".")[2]
    if (field.startswith("model.") and name not in (*LENGTH_FIELDS, *CAPS)) or name == "vocab_size":
        return "the model"
    if name in LENGTH_FIELDS:
        return f"lengths in tokens, divided by at most {LENGTHS}"
    if name in ROW_FIELDS or name == "count":
        return (
            f"rows, divided by {ROWS} (batches, prompts, comparisons), and at most {RECORDS} records of a source, "
            f"{DOCUMENTS} of text"
        )
    if name == "too_long":
        return "dialogues and comparisons that the shorter rows cannot hold, left out"
    if name in COUNTED_IN_STEPS:
        return f"steps, {STEPS} where they are configured, and what is counted in them in proportion"
    return "caps"


def _examples(changes: Sequence[Change], most: int = 7) -> str:
    return _some([f"{change.field} {_short(change.real)} -> {_short(change.rehearsed)}" for change in changes], most)


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join([*names[:most], *([f"and {len(names) - most} more"] if len(names) > most else [])])


def _short(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else repr(value)


def _shrink_model(config: ConfigDict) -> None:
    """Few layers, heads and dimensions; queries share keys and values as they do, and ratios of widths stay.

    It computes in float32: a CPU takes several times as long for bfloat16. A tokenizer from outside keeps its pieces.
    """
    model = config.model
    shared, widening = model.heads // model.kv_heads, model.ffn_hidden / model.dim
    kv_heads = min(model.kv_heads, KV_HEADS)
    heads = kv_heads * shared
    head_dim = min(model.dim // model.heads, max(4, WIDTH // heads))
    model.update({
        "layers": min(model.layers, LAYERS),
        "heads": heads,
        "kv_heads": kv_heads,
        "dim": heads * head_dim,
        "ffn_hidden": max(16, 16 * round(widening * heads * head_dim / 16)),
        "compute_dtype": "float32",
    })  # fmt: skip
    trained = any("vocab_size" in config[name] for name in config.stages)
    if trained and not config.get("given", {}).get("tokenizer"):
        model.vocab_size = min(model.vocab_size, VOCABULARY)
        for name in config.stages:
            if "vocab_size" in config[name]:
                config[name].vocab_size = model.vocab_size


def _shrink_steps(part: ConfigDict) -> None:
    """Divides what a stage counts in steps, if its steps are configured; else the data decides how many it has."""
    steps = next((part[field] for field in STEP_FIELDS if field in part), 0)
    divisor = max(1, steps / STEPS)
    for field in COUNTED_IN_STEPS:
        if field in part and divisor > 1:
            part[field] = math.ceil(part[field] / divisor)


def _lengths_divisor(config: ConfigDict) -> int:
    """Returns by how much lengths are divided; rows that are shorter than ROW_TOKENS already stay as they are."""
    parts = [part for name in config.stages for part in (config[name], config[name].get("finetune", {}))]
    shortest = min([config.model.max_length, *(part.length for part in parts if "length" in part)])
    return max(1, min(LENGTHS, shortest // ROW_TOKENS))


def _shrink_fields(config: ConfigDict, lengths: int) -> None:
    """Divides lengths, by `lengths`, and numbers of rows wherever they are; see LENGTHS for `too_long`."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            if "format" in value and ("path" in value or "function" in value):
                _limit_source(value)
            _shrink_fields(value, lengths)
        elif isinstance(value, int) and not isinstance(value, bool):
            config[name] = _smaller(name, value, lengths)
        elif name == "too_long" and value == "raise" and lengths > 1:
            config[name] = "drop"


def _smaller(name: str, value: int, lengths: int) -> int:
    if name in OF_EACH:
        return min(value or MOST_OF_EACH, MOST_OF_EACH)
    if name in LENGTH_FIELDS:
        return math.ceil(value / lengths)
    if name in ROW_FIELDS:
        return max(math.ceil(value / ROWS), LEAST_BATCH if name in BATCHES else 0)
    return min(value, CAPS.get(name, value))


def _limit_source(source: ConfigDict) -> None:
    """Sets a limit that `_shrink_fields` divides, and the same of what a function is asked to make."""
    most = ROWS * (DOCUMENTS if source.format == "text" else RECORDS)
    with source.unlocked():
        source.limit = min(source.get("limit") or most, most)
    arguments = source.get("arguments", {})
    if isinstance(arguments.get("count"), int):
        arguments.count = math.ceil(arguments.count / ROWS)


def _without_given_models(config: ConfigDict) -> tuple[ConfigDict, list[str]]:
    """Models from outside have their own sizes: the stages that they replace run instead. A tokenizer is used."""
    untried = []
    for name, folder in config.get("given", {}).items():
        if folder and config[name].get("role") != "tokenizer":
            config.given[name] = ""
            untried.append(f"the model that config.given.{name} names: {folder}; {name} is run in its place")
    return config, untried


def _changes(real: Mapping, small: Mapping, prefix: str = "") -> Iterator[Change]:
    for name in small:
        field = f"{prefix}{name}"
        was, is_now = real.get(name), small[name]
        if isinstance(is_now, ConfigDict):
            yield from _changes(was or {}, is_now, f"{field}.")
        elif was != is_now:
            yield Change(field, was, is_now)


def _untried(real: ConfigDict, small: ConfigDict) -> Iterator[str]:
    """What depends on the sizes, in sentences."""
    parameters = [parameter_count(ModelConfig(**config.model)) for config in (real, small)]
    yield (
        f"the model's size: {parameters[0] / 1e6:,.1f}M parameters, here {parameters[1] / 1e6:,.1f}M; see --dry_run "
        "for what they need"
    )
    yield f"prompts and answers longer than {small.model.max_length} tokens (the real run has {real.model.max_length})"
    cut = [f"{stage}.{name}" for stage in real.stages for name, limit in _limits(real[stage]) if limit > RECORDS]
    if cut:
        yield f"records behind the first {RECORDS} ({DOCUMENTS} of text) of {len(cut)} sources: {_some(cut)}"
    if real.model.compute_dtype != small.model.compute_dtype:
        yield f"{real.model.compute_dtype}: it computes in {small.model.compute_dtype}, for which a CPU takes less time"
    yield "accelerators, their kernels, several processes, and storage that is not here: a rehearsal runs on the CPU"
    yield "loss, stability and quality: learning rates are the real ones, so what a small model learns means nothing"


def _limits(part: ConfigDict) -> Iterator[tuple[str, float]]:
    """The sources of a stage with the most records that each can give."""
    for name, value in part.items():
        if isinstance(value, ConfigDict) and all(isinstance(one, ConfigDict) for one in value.values()):
            for source, description in value.items():
                if "format" in description:
                    limit = as_source(description).limit
                    yield f"{name}.{source}", math.inf if limit is None else limit
