"""HumanEval and MBPP on local files, for lm-evaluation-harness: pass@k of sampled programs (table 21).

    simple_evaluate(model, tasks=[humaneval("data/benchmarks", PASS_AT_1)], confirm_run_unsafe_code=True)

What a model writes is executed, in the sandbox (sandbox.py); the harness refuses to without that argument. Prompts and
stop strings are those of the harness's tasks of these names.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llama2_jax.evaluation.benchmark_description import Description, documents_of
from llama2_jax.evaluation.benchmark_files import Documents, read_rows
from llama2_jax.evaluation.pass_at_k import pass_at_k
from llama2_jax.evaluation.sandbox import DEFAULT_LIMITS, Limits, run_all

PASSED = "passed"
_MBPP_SHOTS = (2, 3, 4)
_MBPP_TEST = range(11, 511)


@dataclasses.dataclass(frozen=True)
class Samples:
    """How a problem's samples are drawn, and which pass@k they give.

    Attributes:
      count: samples of each problem; more of them make the estimate of pass@k more precise.
      temperature: 0 for the one greedy answer.
      top_p: nucleus of the sampling.
      ks: the k of pass@k, each at most `count`.
      max_new_tokens: of a sample.

    Raises:
      ValueError: if there are fewer samples than a k, or several greedy ones.
    """

    count: int = 1
    temperature: float = 0.1
    top_p: float = 0.95
    ks: tuple[int, ...] = (1,)
    max_new_tokens: int = 512

    def __post_init__(self):
        if not self.ks or min(self.ks) < 1 or max(self.ks) > self.count:
            raise ValueError(f"ks={self.ks}: wanted numbers from 1 to the {self.count} samples of a problem")
        if self.temperature == 0 and self.count > 1:
            raise ValueError(f"count={self.count} samples at temperature 0 would all be the same: sample 1, or set it")


# The settings of table 21; it does not say how many samples were drawn.
PASS_AT_1 = Samples()
PASS_AT_100 = Samples(count=200, temperature=0.8, ks=(1, 10, 100))
PASS_AT_80 = Samples(count=80, temperature=0.8, ks=(1, 10, 80))


def humaneval(root: str, samples: Samples, limits: Limits = DEFAULT_LIMITS) -> Description:
    """HumanEval (Chen et al. 2021), 0-shot, of <root>/humaneval/HumanEval.jsonl.gz.

    Args:
      root: the folder with a folder for each benchmark.
      samples: of each problem.
      limits: of each program.
    """
    return {
        **documents_of({"test": functools.partial(read_humaneval, root)}),
        **_scored_by_tests("humaneval", samples, limits, _humaneval_program),
        "num_fewshot": 0,
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{test}}\ncheck({{entry_point}})",
        "generation_kwargs": _generation(samples, ["\nclass", "\ndef", "\n#", "\nif", "\nprint"]),
    }


def mbpp(root: str, samples: Samples, limits: Limits = DEFAULT_LIMITS) -> Description:
    """MBPP (Austin et al. 2021), 3-shot, of <root>/mbpp/mbpp.jsonl.gz: problems 11 to 510, after problems 2, 3 and 4.

    Args:
      root: the folder with a folder for each benchmark.
      samples: of each problem.
      limits: of each program.
    """
    return {
        **documents_of(
            {"test": functools.partial(read_mbpp, root, _MBPP_TEST), "prompt": functools.partial(_mbpp_shots, root)}
        ),
        **_scored_by_tests("mbpp", samples, limits, _mbpp_program),
        "num_fewshot": len(_MBPP_SHOTS),
        "fewshot_split": "prompt",
        "fewshot_config": {"sampler": "first_n", "doc_to_target": "{{code}}\n[DONE]"},
        "doc_to_text": "You are an expert Python programmer, and here is your task: {{text}} Your code should pass "
        "these tests:\n\n{{test_list | join('\n')}}\n[BEGIN]\n",
        "doc_to_target": "{{test_list | join('\n')}}",
        "target_delimiter": "",
        "generation_kwargs": _generation(samples, ["[DONE]"]),
    }


def read_humaneval(root: str) -> Documents:
    """HumanEval's problems: `task_id`, `prompt`, `entry_point` and `test`.

    Raises:
      ValueError: if the file is missing or one of its rows is broken, with its place.
    """
    return read_rows(root, "humaneval/HumanEval.jsonl.gz", _humaneval)


def read_mbpp(root: str, wanted: Sequence[int]) -> Documents:
    """MBPP's problems whose `task_id` is wanted: `text`, `code`, `test_setup_code` and `test_list`.

    Raises:
      ValueError: if the file is missing, one of its rows is broken, with its place, or none is wanted.
    """
    found = [row for row in read_rows(root, "mbpp/mbpp.jsonl.gz", _mbpp) if row["task_id"] in wanted]
    if not found:
        raise ValueError(f"{root}/mbpp/mbpp.jsonl.gz: no problem with a task_id from {wanted[0]} to {wanted[-1]}")
    return found


def _mbpp_shots(root: str) -> Documents:
    shots = sorted(read_mbpp(root, _MBPP_SHOTS), key=lambda row: row["task_id"])
    if len(shots) != len(_MBPP_SHOTS):
        raise ValueError(f"{root}/mbpp/mbpp.jsonl.gz: the prompt needs the problems with task_id 2, 3 and 4")
    return shots


def _humaneval(row: Mapping) -> dict:
    return {name: _text(row, name) for name in ("task_id", "prompt", "entry_point", "test")}


def _mbpp(row: Mapping) -> dict:
    tests = row["test_list"]
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
        raise ValueError(f"test_list is {tests!r:.60}, wanted a list of assert statements")
    texts = {name: _text(row, name) for name in ("text", "code", "test_setup_code")}
    return {"task_id": int(row["task_id"]), **texts, "test_list": tests}


def _text(row: Mapping, name: str) -> str:
    if not isinstance(row[name], str):
        raise ValueError(f"{name} is {row[name]!r:.60}, wanted text")
    return row[name]


def _humaneval_program(document: Mapping, completion: str) -> str:
    return f"{document['prompt']}{completion}\n{document['test']}\ncheck({document['entry_point']})\n"


def _mbpp_program(document: Mapping, completion: str) -> str:
    return "\n".join([completion, document["test_setup_code"], *document["test_list"], ""])


def _generation(samples: Samples, stops: list[str]) -> dict[str, Any]:
    sampled = {"temperature": samples.temperature, "top_p": samples.top_p} if samples.temperature else {}
    return {"until": stops, "do_sample": bool(sampled), "max_gen_toks": samples.max_new_tokens, **sampled}


def _scored_by_tests(
    name: str, samples: Samples, limits: Limits, program: Callable[[Mapping, str], str]
) -> Description:
    return {
        "task": f"{name}_local",
        "output_type": "generate_until",
        "unsafe_code": True,
        "repeats": samples.count,
        # A filter has the samples of all problems at once, so all processors are busy, and with logged samples the
        # harness keeps what it makes of each: why a program failed.
        "filter_list": [
            {
                "name": "sandbox",
                "filter": [{"function": "custom", "filter_fn": functools.partial(_outcomes, limits, program)}],
            }
        ],
        "process_results": functools.partial(_pass_at_ks, samples.ks),
        "metric_list": [
            {"metric": f"pass@{k}", "aggregation": "mean", "higher_is_better": True} for k in samples.ks
        ],
    }  # fmt: skip


def _outcomes(
    limits: Limits,
    program: Callable[[Mapping, str], str],
    completions: Sequence[Sequence[str]],
    documents: Sequence[Mapping],
) -> list[list[str]]:
    """Returns how each sample of each problem ended: PASSED, or why it failed."""
    programs = [
        program(document, completion)
        for document, drawn in zip(documents, completions, strict=True)
        for completion in drawn
    ]
    ended = iter(outcome.failure or PASSED for outcome in run_all(programs, limits))
    return [[next(ended) for _ in drawn] for drawn in completions]


def _pass_at_ks(ks: Sequence[int], document: Mapping, results: Sequence[Sequence[str]]) -> dict[str, float]:
    """The metrics of one problem; `results` has the outcomes of its one prompt."""
    del document
    (outcomes,) = results
    return {f"pass@{k}": pass_at_k(len(outcomes), outcomes.count(PASSED), k) for k in ks}
