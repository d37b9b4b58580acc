"""Benchmarks by columns as in table 3, each the mean of its tasks, measured by lm-evaluation-harness.

A task that cannot be measured is a row with an error; the others are measured all the same.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import logging

from llama2_jax.evaluation.benchmark_tasks import CODE, tasks
from llama2_jax.evaluation.code_tasks import PASS_AT_1, PASS_AT_80, PASS_AT_100

# The harness's own tasks where they have other names than ours.
_SAMPLES = {"pass@1": PASS_AT_1, "pass@80": PASS_AT_80, "pass@100": PASS_AT_100}
_HARNESS_NAMES = {"math": "minerva_math", "bbh": "bbh_cot_fewshot", "agieval": "agieval_en"}

# How many tasks a group has.
_PARTS = {"mmlu": 57, "bbh": 27, "agieval": 8}


@dataclasses.dataclass(frozen=True)
class Suite:
    """How tasks are asked.

    Attributes:
      files: the folder with the benchmarks' files; "" takes the harness's own tasks, from the hub.
      documents: about so many of a task, the first ones, or of all parts of a group, at least one of each; 0 is all.
      max_new_tokens: of an answer.
      execute_code: whether programs that models write may be executed, in the sandbox; CODE needs it.
      chat: whether prompts are dialogues in the Llama 2 chat format, each example a turn with its answer.
    """

    files: str
    documents: int
    max_new_tokens: int
    execute_code: bool = False
    chat: bool = False


def measure(model: Any, task: str, entry: Mapping[str, Any], suite: Suite) -> dict[str, Any]:
    """Returns a task's row: its value, a mean over documents, with its standard error; or an `error`.

    Args:
      model: a HarnessModel.
      task: its name, or that of a group, whose tasks count by their documents.
      entry: `shots`, how many examples the prompt has, and `metric`, such as "acc", with the harness's filter behind a
        comma if the task has several, such as "exact_match,strict-match".
      suite: how it is asked.
    """
    row = {"task": task, "shots": entry["shots"], "metric": entry["metric"]}
    try:
        return row | _combined(_evaluate(model, task, entry, suite), entry["metric"])
    # What goes wrong with one task, in the harness, a file or the network, is no reason to lose the others.
    except Exception as error:
        logging.exception("benchmark %s", task)
        return row | {
            "value": None,
            "standard_error": None,
            "documents": 0,
            "error": f"{type(error).__name__}: {error}",
        }


def columns_of(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Returns of each version and column the mean of its tasks' values (table 3).

    Args:
      rows: of `measure`, with `version` and `column`.
      columns: in order.

    Returns:
      Rows of version, column, `value` (None if no task was measured), how many `tasks` were `measured`, and how many
      there are.
    """
    rows = list(rows)
    found = []
    for version in dict.fromkeys(row["version"] for row in rows):
        for column in columns:
            own = [row for row in rows if (row["version"], row["column"]) == (version, column)]
            values = [row["value"] for row in own if row["value"] is not None]
            mean = sum(values) / len(values) if values else None
            found.append(
                {"version": version, "column": column, "value": mean, "measured": len(values), "tasks": len(own)}
            )
    return found


def _evaluate(model: Any, task: str, entry: Mapping[str, Any], suite: Suite) -> dict[str, Any]:
    import lm_eval
    from lm_eval.tasks import TaskManager

    # It asks for more than the other metrics do, so tasks have it only if it is wanted.
    parts = _PARTS.get(task, 1)
    metrics = {"metric_list": [{"metric": entry["metric"]}]} if entry["metric"] == "acc_mutual_info" else {}
    if task in CODE and not suite.files:
        raise ValueError(f"{task} is there on local files alone: the harness's own executes code without a sandbox")
    if suite.files:
        samples = _SAMPLES.get(entry["metric"]) if suite.execute_code else None
        shots = {task: entry["shots"]}
        descriptions = [
            description | metrics
            for description in tasks(
                suite.files, [task], max_new_tokens=suite.max_new_tokens, shots=shots, samples=samples
            )
        ]
        manager, overrides = TaskManager(include_defaults=False), {}
    else:
        name = _HARNESS_NAMES.get(task, task)
        descriptions, manager = [{"task": name, **metrics} if metrics else name], TaskManager()
        overrides = {"num_fewshot": entry["shots"], "gen_kwargs": f"max_gen_toks={suite.max_new_tokens}"}
    return lm_eval.simple_evaluate(
        model=model,
        tasks=descriptions,
        task_manager=manager,
        limit=math.ceil(suite.documents / parts) or None,
        log_samples=False,
        apply_chat_template=suite.chat,
        fewshot_as_multiturn=suite.chat,
        confirm_run_unsafe_code=task in CODE and suite.execute_code,
        bootstrap_iters=2,  # means have a closed form; 0 would leave that out too
        **overrides,
    )


def _combined(results: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Returns the mean over the documents of all tasks."""
    parts = []
    for name, counts in results["n-samples"].items():
        value, error = _metric(results["results"][name], metric, name)
        parts.append((counts["effective"], value, error))
    documents = sum(count for count, _, _ in parts)
    if not documents:
        raise ValueError("the task has no documents")
    return {
        "value": sum(count * value for count, value, _ in parts) / documents,
        "standard_error": math.sqrt(sum((count * error) ** 2 for count, _, error in parts)) / documents,
        "documents": documents,
    }


def _metric(values: Mapping[str, Any], metric: str, task: str) -> tuple[float, float]:
    name, _, wanted = metric.partition(",")
    keys = [key for key in values if key.split(",")[0] == name and wanted in ("", key.partition(",")[2])]
    if not keys:
        there = ", ".join(key for key, value in values.items() if isinstance(value, float) and "_stderr" not in key)
        raise ValueError(f"task {task} has no metric {metric!r}; it has {there}")
    error = values.get(keys[0].replace(name, f"{name}_stderr", 1))
    return float(values[keys[0]]), float(error) if isinstance(error, float | int) else 0.0
