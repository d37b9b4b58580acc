"""Benchmarks of exams on local files: AGIEval's English part, BIG-Bench Hard and MATH."""

import ast
from collections.abc import Mapping
from typing import Any

from llama2_jax.evaluation.benchmark_files import Documents, checked, file_at, read_json, read_rows

# The English tasks that the paper lists (its table of AGIEval).
AGIEVAL = ("aqua-rat", "logiqa-en", "lsat-ar", "lsat-lr", "lsat-rc", "sat-en", "sat-en-without-passage", "sat-math")
# Tasks whose examples are another's.
_SAME_SHOTS = {"sat-en-without-passage": "sat-en"}


def agieval(root: str, name: str) -> Documents:
    """A task of AGIEval."""
    return read_rows(root, f"agieval/{name}.jsonl.gz", _exam)


def agieval_shots(root: str, name: str) -> Documents:
    """AGIEval's own examples for a task, three to five."""
    wanted = _SAME_SHOTS.get(name, name)
    samples = read_rows(root, "agieval/few_shot_prompts.csv.gz", lambda row: {"name": row[""], "text": row[wanted]})
    return [
        checked(f"{root}/agieval/few_shot_prompts.csv.gz, {wanted}: {row['name']}", row["text"], _sample)
        for row in samples
        if row["name"].startswith("sample") and row["text"].strip()
    ]


def agieval_task() -> dict[str, Any]:
    """The fields of a task: the letter of the right option."""
    return {
        "fewshot_split": "shots",
        "fewshot_config": {"sampler": "first_n"},
        "output_type": "multiple_choice",
        "doc_to_text": "{{query}}",
        "doc_to_choice": "letters",
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}],
    }


def bbh(root: str, name: str) -> Documents:
    """A task of BIG-Bench Hard."""
    path = file_at(root, f"bbh/{name}.json")
    return [
        checked(f"{path}: examples[{index}]", row, lambda row: {"input": row["input"], "target": row["target"]})
        for index, row in enumerate(read_json(path, "examples"))
    ]


def bbh_names(root: str) -> list[str]:
    """The tasks that have a file."""
    return sorted(path.stem for path in file_at(root, "bbh").iterdir() if path.suffix == ".json")


def bbh_task(root: str, name: str) -> dict[str, Any]:
    """The fields of a task: an answer step by step, behind the benchmark's own three examples (Suzgun et al. 2022)."""
    prompt = file_at(root, f"bbh/cot-prompts/{name}.txt").read_text().split("-----\n", 1)[-1].strip()
    return {
        "description": f"{prompt}\n\n",
        "output_type": "generate_until",
        "doc_to_text": "Q: {{input}}\nA: Let's think step by step.\n",
        "doc_to_target": "{{target}}",
        "generation_kwargs": {"until": ["</s>", "Q:", "\n\n"]},
        "filter_list": [
            {
                "name": "get-answer",
                "filter": [
                    {"function": "regex", "regex_pattern": r"(?<=the answer is )(.*)(?=\.)"},
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [{"metric": "exact_match"}],
    }


def math(root: str) -> Documents:
    """500 problems of MATH's test set."""
    return read_rows(
        root, "math500/test.jsonl.gz", lambda row: {key: row[key] for key in ("problem", "solution", "answer")}
    )


def math_task() -> dict[str, Any]:
    """The fields of a task; answers are compared as by Hendrycks et al. 2021, examples are the first problems."""
    return {
        "fewshot_split": "test",
        "fewshot_config": {"sampler": "first_n"},
        "output_type": "generate_until",
        "doc_to_text": "Problem: {{problem}}\nAnswer:",
        "doc_to_target": "${{answer}}$",
        "generation_kwargs": {"until": ["Problem:"]},
        "process_results": _math_scores,
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }


def _math_scores(doc: Mapping, results: list[str]) -> dict[str, float]:
    from lm_eval.tasks.hendrycks_math.utils import is_equiv

    parts = results[0].strip().split("$")
    answer = "$".join(parts[1:-1]) if len(parts) > 2 else parts[0]
    return {"exact_match": float(is_equiv(answer, doc["answer"]))}


def _sample(text: str) -> dict:
    return _exam(ast.literal_eval(text))


def _exam(row: Mapping) -> dict:
    options = row["options"]
    letters = list("ABCDEFGH"[: len(options)])
    if row["label"] not in letters:
        raise ValueError(f"the label is {row['label']!r} of {len(options)} options")
    passage = f"{row['passage']} " if row.get("passage") else ""
    return {
        "query": f"{passage}Q: {row['question']} Answer Choices: {' '.join(options)}\n"
        f"A: Among {letters[0]} through {letters[-1]}, the answer is",
        "letters": letters,
        "label": letters.index(row["label"]),
    }
