"""The benchmarks of the paper, column by column as in table 3, through lm-evaluation-harness (section 2.3).

Each version is measured on every task. What an earlier start has measured is not measured again. Writes
benchmarks.json. Needs the extra "benchmarks".
"""

import dataclasses
import functools
import importlib.util
from collections.abc import Mapping

from absl import logging
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.evaluation.benchmark_suite import Suite, columns_of, measure
from llama2_jax.evaluation.benchmark_tasks import CODE
from llama2_jax.evaluation.sandbox import kernel_layers
from llama2_jax.inference.abstract import longest_contexts
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.device_programs import LONGEST_PROMPTS, abstract_model, continuations, generation
from llama2_jax.pipeline.encoding import load_tokenizer
from llama2_jax.pipeline.resumable import map_resumable
from llama2_jax.pipeline.runtime import Inputs, Runtime
from llama2_jax.pipeline.sampling import load_policy
from llama2_jax.pipeline.stage_files import write_json
from llama2_jax.sizing.programs import DeviceWork

WITHOUT_HARNESS = (
    "the package lm-eval is not installed, so no benchmark was measured: pip install -e '.[benchmarks]', and run the "
    "stage again (--redo)"
)


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Measures every version on the tasks of all columns."""
    if not _has_harness():
        logging.warning("%s: %s", runtime.stage, WITHOUT_HARNESS)
        return {"columns": [], "tasks": [], "notes": [WITHOUT_HARNESS]}
    tokenizer = load_tokenizer(inputs)
    suite = Suite(_folder(config, runtime), config.documents_per_task, config.max_new_tokens, config.execute_code)
    left_out = () if config.execute_code else tuple(CODE)
    jobs = [
        (version, folder, column, task, config.columns[column][task])
        for version, folder in zip(config.versions, inputs["models"], strict=True)
        for column in config.order
        for task in config.columns[column]
        if task not in left_out
    ]

    @functools.lru_cache(1)
    def load(folder: epath.Path):
        from llama2_jax.evaluation.harness_model import HarnessModel

        policy = load_policy(folder, tokenizer, runtime)
        return HarnessModel(policy.model, policy.params, policy.tokenizer, runtime.seed)

    def measure_job(first: int, _: int) -> list[dict]:
        version, folder, column, task, entry = jobs[first]
        asked = dataclasses.replace(suite, chat=version in config.chat_versions)
        return [{"version": version, "column": column, **measure(load(folder), task, entry, asked)}]

    rows = map_resumable("tasks", len(jobs), measure_job, runtime, size=1)
    columns = columns_of(rows, [column for column in config.order if {*config.columns[column]} - {*left_out}])
    write_json(runtime.folder / "benchmarks.json", {"columns": columns, "tasks": rows})
    errors = {f"{row['task']}: {row['error']}" for row in rows if row.get("error")}
    return {"columns": columns, "tasks": rows, "notes": [*sorted(errors), *_code_notes(config), *_chat_notes(config)]}


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if the harness is wanted and is not there, or names in the config do not agree."""
    del inputs, count
    if unknown := sorted({*config.chat_versions} - {*config.versions}):
        raise ValueError(f"chat_versions={unknown}: choose among the versions, {', '.join(config.versions)}")
    if not config.optional and not _has_harness():
        raise ValueError("benchmarks need the package lm-eval: pip install -e '.[benchmarks]'")
    if sorted(config.order) != sorted(config.columns):
        raise ValueError(f"order={tuple(config.order)}: wanted the columns {', '.join(sorted(config.columns))}")
    for column, tasks in config.columns.items():
        if not tasks:
            raise ValueError(f"columns.{column} has no task: wanted at least one")


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """Scores of continuations, and answers, by one version after the other."""
    version = abstract_model("version", model, mesh)
    shapes = longest_contexts(model, mesh, config.max_new_tokens)
    programs = (
        *generation(config, model, mesh, version, top_p=1.0, shapes=shapes), continuations(model, mesh, version)
    )  # fmt: skip
    return DeviceWork(programs, assumptions=(LONGEST_PROMPTS,))


def _code_notes(config: ConfigDict) -> list[str]:
    """What to say of tasks that execute code."""
    asked = sorted({*CODE} & {task for tasks in config.columns.values() for task in tasks})
    if not asked:
        return []
    if not config.execute_code:
        return [f"{', '.join(asked)}: not measured, since models' programs are executed; execute_code=True does so"]
    missing = {"files", "calls"} - {*kernel_layers()}
    return [f"the sandbox of {', '.join(asked)} was without the kernel's layers: {missing}"] if missing else []


def _chat_notes(config: ConfigDict) -> list[str]:
    named = ", ".join(config.chat_versions)
    return [f"asked in the chat format, each example a turn with its answer: {named}"] if named else []


def _folder(config: ConfigDict, runtime: Runtime) -> str:
    folder = epath.Path(runtime.data_root) / config.files
    if config.files and folder.is_dir():
        return str(folder)
    logging.info("%s: no folder %s: lm-evaluation-harness loads its own tasks", runtime.stage, folder)
    return ""


def _has_harness() -> bool:
    return importlib.util.find_spec("lm_eval") is not None
