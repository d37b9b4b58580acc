"""Tasks of lm-evaluation-harness on local files: prompts and metrics are those of the harness's tasks of these names.

`tasks("data/benchmarks", ["piqa", "gsm8k"])` gives descriptions for `lm_eval.simple_evaluate(tasks=...)`; nothing is
downloaded.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llama2_jax.evaluation import benchmark_files as files

Description = dict[str, Any]

_ACCURACY = ({"metric": "acc"},)
# By the length of a choice in characters too, as the paper scores most multiple-choice tasks.
_BOTH_ACCURACIES = ({"metric": "acc"}, {"metric": "acc_norm"})
_ARTICLES = r"\b(?:The |the |An |A |The |a |an )"
_NUMBER = {
    "metric": "exact_match",
    "ignore_case": True,
    "ignore_punctuation": False,
    "regexes_to_ignore": [",", r"\$", "(?s).*#### ", r"\.$"],
}
_FLEXIBLE = {
    "name": "flexible-extract",
    "filter": [
        {"function": "regex", "group_select": -1, "regex_pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)"},
        {"function": "take_first"},
    ],
}
_STRICT = {
    "name": "strict-match",
    "filter": [{"function": "regex", "regex_pattern": r"#### (\-?[0-9\.\,]+)"}, {"function": "take_first"}],
}
_FIRST_LINE = [{"name": "remove_whitespace", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}]


def tasks(root: str, names: Iterable[str], *, max_new_tokens: int = 256) -> list[Description]:
    """Returns the descriptions of tasks.

    Args:
      root: the folder with a folder for each benchmark (benchmark_files.py).
      names: of DESCRIPTIONS; `mmlu_<subject>` too.
      max_new_tokens: of the answers to tasks that generate.

    Raises:
      ValueError: if a name is unknown.
    """
    return [_task(root, name, max_new_tokens) for name in names]


def _task(root: str, name: str, max_new_tokens: int) -> Description:
    if name.startswith("mmlu_"):
        description = _mmlu(root, name.removeprefix("mmlu_"))
    elif name in DESCRIPTIONS:
        description = DESCRIPTIONS[name](root)
    else:
        raise ValueError(f"no task {name!r} on local files; there are {', '.join(DESCRIPTIONS)} and mmlu_<subject>")
    if description["output_type"] == "generate_until":
        description["generation_kwargs"] = {
            "do_sample": False, "temperature": 0.0, "max_gen_toks": max_new_tokens, **description["generation_kwargs"]
        }  # fmt: skip
    return {"task": f"{name}_local", **description}


def _of(splits: Mapping[str, Callable[[], files.Documents]]) -> Description:
    """The fields that say where a task's documents are; they are read when the task is made."""
    return {"custom_dataset": functools.partial(_read, dict(splits)), "test_split": "test"}


def _read(splits: Mapping[str, Callable[[], files.Documents]], **metadata: Any) -> dict[str, Any]:
    from datasets import Dataset  # comes with lm-eval

    del metadata
    return {split: Dataset.from_list(documents()) for split, documents in splits.items()}


def _choices(read: Callable[[str], files.Documents], text: str, metrics: tuple, choices: Any = "choices") -> Callable:
    def describe(root: str) -> Description:
        return {
            **_of({"test": functools.partial(read, root)}),
            "output_type": "multiple_choice",
            "doc_to_text": text,
            "doc_to_choice": choices,
            "doc_to_target": "label",
            "metric_list": [dict(metric) for metric in metrics],
        }

    return describe


def _mmlu(root: str, subject: str) -> Description:
    return {
        **_of({split: functools.partial(files.mmlu, root, subject, split) for split in ("dev", "test")}),
        "fewshot_split": "dev",
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": 5,
        "description": "The following are multiple choice questions (with answers) about "
        f"{subject.replace('_', ' ')}.\n\n",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\n"
        "Answer:",
        "doc_to_choice": ["A", "B", "C", "D"],
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}],
    }


def _gsm8k(root: str) -> Description:
    return {
        **_of({split: functools.partial(files.gsm8k, root, split) for split in ("train", "test")}),
        "fewshot_split": "train",
        "num_fewshot": 5,
        "output_type": "generate_until",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["Question:", "</s>", "<|im_end|>"]},
        "filter_list": [_STRICT, _FLEXIBLE],
        "metric_list": [_NUMBER],
    }


def _svamp(root: str) -> Description:
    return {
        **_of({"test": functools.partial(files.svamp, root)}),
        "output_type": "generate_until",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["Question:", "\n"]},
        "filter_list": [_FLEXIBLE],
        "metric_list": [_NUMBER],
    }


def _short_answers(read: Callable[[str], files.Documents]) -> Callable:
    def describe(root: str) -> Description:
        return {
            **_of({"test": functools.partial(read, root)}),
            "description": "Answer these questions:\n\n",
            "output_type": "generate_until",
            "doc_to_text": "Q: {{question}}?\nA:",
            "doc_to_target": "{{answer}}",
            "fewshot_delimiter": "\n",
            "generation_kwargs": {"until": ["\n", ".", ","]},
            "filter_list": _FIRST_LINE,
            "metric_list": [
                {
                    "metric": "exact_match",
                    "ignore_case": True,
                    "ignore_punctuation": True,
                    "regexes_to_ignore": [_ARTICLES],
                }
            ],
        }

    return describe


DESCRIPTIONS: Mapping[str, Callable[[str], Description]] = {
    "piqa": _choices(files.piqa, "Question: {{goal}}\nAnswer:", _BOTH_ACCURACIES),
    "boolq": _choices(files.boolq, "{{passage}}\nQuestion: {{question}}?\nAnswer:", _ACCURACY, ["no", "yes"]),
    "hellaswag": _choices(files.hellaswag, "{{query}}", _BOTH_ACCURACIES),
    "arc_easy": _choices(files.arc_easy, "Question: {{question}}\nAnswer:", _BOTH_ACCURACIES),
    "arc_challenge": _choices(files.arc_challenge, "Question: {{question}}\nAnswer:", _BOTH_ACCURACIES),
    "openbookqa": _choices(files.openbookqa, "{{question}}", _BOTH_ACCURACIES),
    "gsm8k": _gsm8k,
    "svamp": _svamp,
    "nq_open": _short_answers(files.nq_open),
    "triviaqa": _short_answers(files.triviaqa),
}
