"""Tasks of lm-evaluation-harness on local files: prompts and metrics are those of the harness's tasks of these names.

`tasks("data/benchmarks", ["piqa", "gsm8k"])` gives descriptions for `lm_eval.simple_evaluate(tasks=...)`; nothing is
downloaded.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llama2_jax.evaluation import benchmark_exams as exams
from llama2_jax.evaluation import benchmark_files as files
from llama2_jax.evaluation import benchmark_reading as reading
from llama2_jax.evaluation.benchmark_description import Description, documents_of
from llama2_jax.evaluation.code_tasks import Samples, humaneval, mbpp

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
# Of tasks without a split to take examples from: the first documents, but the one that is asked.
_EXAMPLES = {"fewshot_split": "test", "fewshot_config": {"sampler": "first_n"}}
_FIRST_LINE = [{"name": "remove_whitespace", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}]


def tasks(
    root: str,
    names: Iterable[str],
    *,
    max_new_tokens: int = 256,
    shots: Mapping[str, int] | None = None,
    samples: Samples | None = None,
) -> list[Description]:
    """Returns the descriptions of tasks.

    Args:
      root: the folder with a folder for each benchmark (benchmark_files.py).
      names: of DESCRIPTIONS or GROUPS; parts of groups too, such as `mmlu_astronomy`.
      max_new_tokens: of the answers to tasks that generate.
      shots: how many examples a task or group has, where that is not the harness's own number.
      samples: of CODE, which execute what a model writes (sandbox.py): how its programs are drawn.

    Raises:
      ValueError: if a name is unknown, or one of CODE and there are no `samples`.
    """
    shots = shots or {}
    descriptions = []
    for name in names:
        for part in parts_of(root, name):
            if part in CODE:
                descriptions.append(_code(root, part, samples))
            else:
                descriptions.append(_task(root, part, max_new_tokens, shots.get(part, shots.get(name))))
    return descriptions


def parts_of(root: str, name: str) -> list[str]:
    """Returns the names of a group's tasks, or the name alone if it is a task's."""
    return [f"{name}_{part}" for part in GROUPS[name](root)] if name in GROUPS else [name]


def _code(root: str, name: str, samples: Samples | None) -> Description:
    if samples is None:
        raise ValueError(f"{name} executes what a model writes, in a sandbox: that has to be asked for")
    return CODE[name](root, samples)


def _task(root: str, name: str, max_new_tokens: int, shots: int | None) -> Description:
    group, _, part = name.partition("_")
    if group in PARTS and part:
        description = PARTS[group](root, part)
    elif name in DESCRIPTIONS:
        description = DESCRIPTIONS[name](root)
    else:
        known = ", ".join((*DESCRIPTIONS, *CODE, *GROUPS, *(f"{group}_<part>" for group in PARTS)))
        raise ValueError(f"no task {name!r} on local files; there are {known}")
    if description["output_type"] == "generate_until":
        description["generation_kwargs"] = {
            "do_sample": False, "temperature": 0.0, "max_gen_toks": max_new_tokens, **description["generation_kwargs"]
        }  # fmt: skip
    if shots is not None:
        description["num_fewshot"] = shots
    return {"task": f"{name}_local", **description}


def _choices(read: Callable[[str], files.Documents], text: str, metrics: tuple, choices: Any = "choices") -> Callable:
    def describe(root: str) -> Description:
        return {
            **documents_of({"test": functools.partial(read, root)}),
            "output_type": "multiple_choice",
            "doc_to_text": text,
            "doc_to_choice": choices,
            "doc_to_target": "label",
            "metric_list": [dict(metric) for metric in metrics],
            **_EXAMPLES,
        }

    return describe


def _winogrande(root: str) -> Description:
    """What stands behind the blank is scored, with either name before it ("partial evaluation", Trinh and Le 2018)."""
    return {
        **documents_of({"test": functools.partial(files.winogrande, root)}),
        "output_type": "multiple_choice",
        "doc_to_text": "label",
        "doc_to_choice": "choices",
        "doc_to_target": "{{rest}}",
        "metric_list": [{"metric": "acc"}],
        **_EXAMPLES,
    }


def _agieval(root: str, name: str) -> Description:
    splits = {"test": exams.agieval, "shots": exams.agieval_shots}
    return {
        **documents_of({split: functools.partial(read, root, name) for split, read in splits.items()}),
        **exams.agieval_task(),
    }


def _bbh(root: str, name: str) -> Description:
    return {
        **documents_of({"test": functools.partial(exams.bbh, root, name)}),
        **exams.bbh_task(root, name),
    }


def _generated(read: Callable[[str], files.Documents], fields: Description) -> Callable[[str], Description]:
    return lambda root: {**documents_of({"test": functools.partial(read, root)}), **fields}


def _mmlu(root: str, subject: str) -> Description:
    return {
        **documents_of({split: functools.partial(files.mmlu, root, subject, split) for split in ("dev", "test")}),
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
        **documents_of({split: functools.partial(files.gsm8k, root, split) for split in ("train", "test")}),
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
        **documents_of({"test": functools.partial(files.svamp, root)}),
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
            **documents_of({"test": functools.partial(read, root)}),
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
            **_EXAMPLES,
        }

    return describe


DESCRIPTIONS: Mapping[str, Callable[[str], Description]] = {
    "piqa": _choices(files.piqa, "Question: {{goal}}\nAnswer:", _BOTH_ACCURACIES),
    "boolq": _choices(files.boolq, "{{passage}}\nQuestion: {{question}}?\nAnswer:", _ACCURACY, ["no", "yes"]),
    "hellaswag": _choices(files.hellaswag, "{{query}}", _BOTH_ACCURACIES),
    "arc_easy": _choices(files.arc_easy, "Question: {{question}}\nAnswer:", _BOTH_ACCURACIES),
    "arc_challenge": _choices(files.arc_challenge, "Question: {{question}}\nAnswer:", _BOTH_ACCURACIES),
    "openbookqa": _choices(files.openbookqa, "{{question}}", _BOTH_ACCURACIES),
    "social_iqa": _choices(files.social_iqa, "Q: {{question}}\nA:", _BOTH_ACCURACIES),
    "winogrande": _winogrande,
    "squad": _generated(reading.squad, reading.squad_task()),
    "quac": _generated(reading.quac, reading.quac_task()),
    "math": _generated(exams.math, exams.math_task()),
    "gsm8k": _gsm8k,
    "svamp": _svamp,
    "nq_open": _short_answers(files.nq_open),
    "triviaqa": _short_answers(files.triviaqa),
}
# Code that is executed.
CODE: Mapping[str, Callable[[str, Samples], Description]] = {"humaneval": humaneval, "mbpp": mbpp}
PARTS: Mapping[str, Callable[[str, str], Description]] = {"mmlu": _mmlu, "bbh": _bbh, "agieval": _agieval}
# The names of a group's parts, from the folder with the benchmarks.
GROUPS: Mapping[str, Callable[[str], Iterable[str]]] = {
    "mmlu": files.mmlu_subjects,
    "bbh": exams.bbh_names,
    "agieval": lambda root: exams.AGIEVAL,
}
