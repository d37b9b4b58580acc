"""The benchmarks of table 3: of each column its tasks, with the paper's shots and metrics (section 2.3, A.2.2)."""

from collections.abc import Mapping

from ml_collections import ConfigDict

from experiments.parts.scales import by_scale
from experiments.parts.stages import add_stage


def task(shots: int, metric: str) -> dict:
    """Returns how a task is asked, and what is counted."""
    return {"shots": shots, "metric": metric}


# The likelihood of a choice by its characters; of these two, as in LLaMA's paper, against that without a context.
BY_CHARACTERS, AGAINST_NO_CONTEXT = "acc_norm", "acc_mutual_info"
COMMONSENSE = {
    **{name: task(0, BY_CHARACTERS) for name in ("piqa", "hellaswag", "arc_easy", "arc_challenge")},
    "social_iqa": task(0, "acc"),
    "winogrande": task(0, "acc"),
    "openbookqa": task(0, AGAINST_NO_CONTEXT),
    "commonsense_qa": task(7, "acc"),
}
# Table 3's columns.
COLUMNS = {
    "code": {"humaneval": task(0, "pass@1"), "mbpp": task(3, "pass@1")},
    "commonsense": COMMONSENSE,
    "world_knowledge": {name: task(5, "exact_match") for name in ("nq_open", "triviaqa")},
    "reading": {"squad": task(0, "exact_match"), "quac": task(0, "f1"), "boolq": task(0, AGAINST_NO_CONTEXT)},
    "math": {"gsm8k": task(8, "exact_match,strict-match"), "math": task(4, "exact_match")},
    "mmlu": {"mmlu": task(5, "acc")},
    "bbh": {"bbh": task(3, "exact_match")},
    "agieval": {"agieval": task(3, "acc")},
}


def add_benchmarks(config: ConfigDict, versions: Mapping[str, str], *, optional: bool) -> None:
    """Adds the benchmarks of some versions.

    Args:
      config: the experiment so far, changed in place.
      versions: by name the stages with their models.
      optional: whether the experiment does without them where lm-eval is not installed.
    """
    add_stage(config, "benchmarks", {
        "run": "llama2_jax.stages.benchmarks",
        "role": "benchmarks",
        "inputs": {"tokenizer": "tokenizer", "models": tuple(versions.values())},
        "versions": tuple(versions),
        "chat_versions": (),  # those that are asked in the chat format; the paper's columns are of base models
        "files": "benchmarks",  # a folder under data.root; where there is none, the harness loads its own tasks
        "columns": COLUMNS,
        "order": tuple(COLUMNS),
        "documents_per_task": by_scale(config.scale, {"tiny": 40}, paper=0),  # the first ones; 0 is all
        "max_new_tokens": by_scale(config.scale, {"tiny": 64}, paper=512),
        "execute_code": False,  # whether the column "code" is measured, by executing in a sandbox what models write
        "optional": optional,
    })  # fmt: skip
