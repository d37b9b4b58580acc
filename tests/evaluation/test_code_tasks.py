"""HumanEval and MBPP through the harness: prompts, programs and pass@k on made-up problems."""

import gzip
import json

import pytest

pytest.importorskip("lm_eval")

import lm_eval
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from llama2_jax.evaluation.code_tasks import PASS_AT_1, PASS_AT_80, PASS_AT_100, Samples, humaneval, mbpp, read_mbpp
from llama2_jax.evaluation.harness_model import HarnessModel
from llama2_jax.evaluation.sandbox import Limits
from llama2_jax.models.config import ModelConfig
from llama2_jax.text.tokenizer import Tokenizer, train_tokenizer
from tests.random_model import sharpened_params

LIMITS = Limits(cpu_seconds=1)
PROBLEMS = [
    {
        "task_id": f"HumanEval/{index}", "prompt": f'def {name}(a):\n    """ {text} """\n', "entry_point": name,
        "canonical_solution": "", "test": f"def check(candidate):\n    assert candidate({given}) == {wanted}\n",
    }
    for index, (name, text, given, wanted) in enumerate([("double", "Twice a.", 2, 4), ("square", "a * a.", 3, 9)])
]  # fmt: skip


def mbpp_row(number, name, setup=""):
    tests = [f"assert {name}({value}) == {value + number}" for value in range(3)]
    code = f"def {name}(a):\r\n  return a + {number}"
    return {
        "task_id": number, "text": f"Write a function to add {number}.", "code": code, "test_setup_code": setup,
        "test_list": tests, "challenge_test_list": [],
    }  # fmt: skip


ROWS = [mbpp_row(12, "add", "nothing = 0"), *(mbpp_row(number, f"add_{number}") for number in (2, 3, 4, 10, 11, 511))]


def write(root, name, rows):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


@pytest.fixture
def root(tmp_path):
    write(tmp_path, "humaneval/HumanEval.jsonl.gz", PROBLEMS)
    write(tmp_path, "mbpp/mbpp.jsonl.gz", ROWS)
    return str(tmp_path)


class Canned(LM):
    """Answers each prompt with the next of its completions."""

    def __init__(self, completions):
        super().__init__()
        self.completions = {part: iter(texts) for part, texts in completions.items()}
        self.asked = []

    def generate_until(self, requests, disable_tqdm=False):
        self.asked += [request.args for request in requests]
        parts = [next(part for part in self.completions if part in request.args[0]) for request in requests]
        return [next(self.completions[part]) for part in parts]

    def loglikelihood(self, requests, disable_tqdm=False):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


def evaluate(model, task, **settings):
    manager = TaskManager(include_defaults=False)
    return lm_eval.simple_evaluate(model, tasks=[task], bootstrap_iters=0, task_manager=manager, **settings)


RIGHT, WRONG, HANGING = "    return a * 2", "    return a + 3", "    while True: pass"
HOSTILE = "    try:\n        open('/etc/passwd')\n    finally:\n        return 4"
LEAVING = "    import os; os._exit(0)"


def test_pass_at_k_of_right_wrong_hanging_and_hostile_programs(root):
    model = Canned({
        "double": [RIGHT, WRONG, HANGING, RIGHT], "square": [HOSTILE, "    return a * a", LEAVING, "    return 1 +"],
    })  # fmt: skip
    samples = Samples(count=4, temperature=0.8, ks=(1, 2, 4), max_new_tokens=9)
    found = evaluate(model, humaneval(root, samples, LIMITS), confirm_run_unsafe_code=True)
    results = found["results"]["humaneval_local"]
    assert results["pass@1,sandbox"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    # Of the 6 pairs, all but 1 have one of the 2 right ones; of the others, 3 of 6 have the 1.
    assert results["pass@2,sandbox"] == pytest.approx((5 / 6 + 3 / 6) / 2)
    assert results["pass@4,sandbox"] == 1
    logged = {sample["doc"]["entry_point"]: sample for sample in found["samples"]["humaneval_local"]}
    assert logged["double"]["filtered_resps"] == [["passed", "error: AssertionError: ", "timeout", "passed"]]
    hostile, *_, leaving, broken = logged["square"]["filtered_resps"][0]
    assert hostile == "forbidden: open '/etc/passwd'"
    assert leaving == "error: exited with status 0 before its end" and broken.startswith("error: SyntaxError")
    assert model.asked[0] == (
        PROBLEMS[0]["prompt"],
        {
            "until": ["\nclass", "\ndef", "\n#", "\nif", "\nprint"], "do_sample": True, "temperature": 0.8,
            "top_p": 0.95, "max_gen_toks": 9,
        },
    )  # fmt: skip


def test_mbpp_shows_three_problems_and_runs_the_tests(root):
    model = Canned({
        "add_11(0)": ["def add_11(a):\n  return a + 11"], "add(0)": ["def add(a):\n  return a + 12 + nothing"],
    })  # fmt: skip
    found = evaluate(model, mbpp(root, Samples(temperature=0), LIMITS), confirm_run_unsafe_code=True)
    assert found["results"]["mbpp_local"]["pass@1,sandbox"] == 1
    assert {sample["doc"]["task_id"] for sample in found["samples"]["mbpp_local"]} == {11, 12}
    prompt, settings = next(args for args in model.asked if "add_11(0)" in args[0])
    asked = [
        f"You are an expert Python programmer, and here is your task: Write a function to add {number}. Your code "
        f"should pass these tests:\n\nassert add_{number}(0) == {number}\nassert add_{number}(1) == {number + 1}\n"
        f"assert add_{number}(2) == {number + 2}\n[BEGIN]\n"
        for number in (2, 3, 4, 11)
    ]
    shown = [f"{text}{row['code']}\n[DONE]\n\n" for text, row in zip(asked[:3], ROWS[1:4], strict=True)]
    assert prompt == "".join([*shown, asked[3]])
    assert settings == {"until": ["[DONE]"], "do_sample": False, "max_gen_toks": 512}


def test_nothing_is_executed_unless_asked(root):
    with pytest.raises(ValueError, match="confirm_run_unsafe_code=True"):
        evaluate(Canned({"double": [RIGHT]}), humaneval(root, PASS_AT_1))


def test_samples_of_one_prompt_differ(root, tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(train_tokenizer([problem["prompt"] + RIGHT for problem in PROBLEMS] * 20, 300))
    tokenizer = Tokenizer.load(path)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, dim=32, layers=1, heads=2, kv_heads=2, ffn_hidden=64, max_length=128,
        scan_layers=False, scoring_tokens=1024,
    )  # fmt: skip
    model = HarnessModel(config, sharpened_params(config), tokenizer)
    samples = Samples(count=4, temperature=1.0, top_p=1.0, ks=(1, 4), max_new_tokens=16)
    found = evaluate(model, humaneval(root, samples, LIMITS), confirm_run_unsafe_code=True)
    for sample in found["samples"]["humaneval_local"]:
        (drawn,) = sample["resps"]
        assert len(drawn) == 4 and len(set(drawn)) == 4


def test_the_papers_settings():
    assert (PASS_AT_1.temperature, PASS_AT_1.top_p, PASS_AT_1.ks) == (0.1, 0.95, (1,))
    for samples, k in ((PASS_AT_100, 100), (PASS_AT_80, 80)):
        assert (samples.temperature, samples.top_p) == (0.8, 0.95) and k in samples.ks


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 5, "ks": (1, 10)}, r"ks=\(1, 10\): wanted numbers from 1 to the 5 samples"),
        ({"ks": ()}, "wanted numbers from 1 to the 1 samples"),
        ({"count": 5, "temperature": 0}, "count=5 samples at temperature 0 would all be the same"),
    ],
)
def test_samples_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Samples(**fields)


@pytest.mark.parametrize(
    ("describe", "name", "rows", "message"),
    [
        (humaneval, "humaneval/HumanEval.jsonl.gz", [{"task_id": "HumanEval/0"}], "gz:1: no field 'prompt'; it has"),
        (humaneval, "humaneval/HumanEval.jsonl.gz", [{**PROBLEMS[0], "test": 7}], "gz:1: test is 7, wanted text"),
        (
            mbpp,
            "mbpp/mbpp.jsonl.gz",
            [*ROWS, {**ROWS[0], "test_list": "assert"}],
            "gz:8: test_list is 'assert', wanted",
        ),
        (mbpp, "mbpp/mbpp.jsonl.gz", ROWS[:2], "the prompt needs the problems with task_id 2, 3 and 4"),
        (mbpp, "mbpp/mbpp.jsonl.gz", ROWS[1:5], "no problem with a task_id from 11 to 510"),
    ],
)
def test_a_broken_file_is_told_by_its_place(root, tmp_path, describe, name, rows, message):
    write(tmp_path, name, rows)
    read = describe(root, PASS_AT_1)["custom_dataset"]
    with pytest.raises(ValueError, match=message):
        read()


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"mbpp.jsonl.gz: no such file; wanted the benchmark's documents there"):
        read_mbpp(str(tmp_path), range(11, 511))
