"""Tasks that a teacher writes: read, filtered, and the same whether or not the stage was cut off."""

import json
import types

import numpy as np
import pytest
from ml_collections import ConfigDict

from llama2_jax.inference.generate import Sample
from llama2_jax.pipeline import encoding, sampling
from llama2_jax.stages import generate_instructions
from llama2_jax.text.task_lists import QUESTIONS, Task
from tests.chat_server import ChatServer
from tests.smallest import Letters, smallest_model, smallest_runtime

SEEDS = [Task(f"Name the {word} thing of all.", "", f"The {word}.") for word in ("first", "second", "third", "fourth")]
LIMITS = {"fewest_words": 2, "most_words": 20, "unwanted_words": ("draw",), "unwanted_beginnings": ()}


def seed_tasks(*, seed):
    del seed
    return [
        {"messages": [{"role": "user", "content": one.instruction}, {"role": "assistant", "content": one.output}]}
        for one in SEEDS
    ]


def two_turns(*, seed):
    return [{"messages": [*one["messages"], *one["messages"]]} for one in seed_tasks(seed=seed)]


def config(**changes):
    return ConfigDict({
        "seed_tasks": {"made": {"function": f"{__name__}.seed_tasks", "format": "dialogues"}},
        "task_list": "questions", "tasks_shown": 2, "tasks_per_call": 6, "tasks": 4, "calls_per_round": 3,
        "most_calls": 8, "most_alike": 0.7, "limits": LIMITS, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 200,
        "teacher": {}, **changes,
    })  # fmt: skip


@pytest.fixture
def own_model(tmp_path, monkeypatch):
    """A stage whose model writes, behind its i-th list of a round, what `lists` has there; `asked` are its prompts."""
    asked = []

    def start(*lists, finished=True, name="run", **changes):
        def generate(model, params, prompts, settings, key, eos_id, *, samples_per_prompt, prompt_ids):
            asked.append(["".join(map(chr, prompt[1:])) for prompt in prompts])
            texts = [lists[index % len(lists)] for index in prompt_ids]
            return [
                Sample(index, np.asarray([*map(ord, text), eos_id], np.int32), finished, np.zeros(len(text) + 1))
                for index, text in zip(prompt_ids, texts, strict=True)
            ]

        monkeypatch.setattr(sampling, "generate", generate)
        monkeypatch.setattr(sampling, "load_model", lambda *_: types.SimpleNamespace(params="teacher"))
        monkeypatch.setattr(encoding.Tokenizer, "load", lambda path: Letters())
        runtime = smallest_runtime(tmp_path / name, model=smallest_model(max_length=400))
        inputs = {"tokenizer": tmp_path, "policy": tmp_path / "teacher"}
        results = generate_instructions.run(config(**changes), inputs, runtime)
        return results, _lines(runtime.folder / "tasks.jsonl"), asked

    return start


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lists_are_continued_until_there_are_enough_tasks(own_model, tmp_path):
    results, tasks, asked = own_model(
        " What is red? Answer: A rose.\nQuestion: Where is a boat? Answer: At sea.",
        " Who sings loud songs? Answer: A bird.\nQuestion: When will it rain? Answer: Soon.\n"
        "Question: Too many? Answer: Yes.",
        " What is red? Answer: Blood.",
    )
    assert tasks == [
        {"instruction": "What is red?", "input": "", "output": "A rose."},
        {"instruction": "Where is a boat?", "input": "", "output": "At sea."},
        {"instruction": "Who sings loud songs?", "input": "", "output": "A bird."},
        {"instruction": "When will it rain?", "input": "", "output": "Soon."},
    ]
    assert results == {
        "tasks": 4, "calls": 3, "with_input": 0, "left_out": {"alike": 1},
        "rounds": [{"calls": 3, "read": 6, "kept": 5}],
    }  # fmt: skip
    (prompts,) = asked
    assert len(set(prompts)) > 1 and all(prompt.endswith("\nQuestion:") for prompt in prompts)
    shown = [line for prompt in prompts for line in prompt.splitlines()[:-1]]
    assert len(shown) == 6 and set(shown) <= {f"Question: {t.instruction} Answer: {t.output}" for t in SEEDS}
    assert _lines(tmp_path / "run/dialogues.jsonl")[0] == {
        "messages": [{"role": "user", "content": "What is red?"}, {"role": "assistant", "content": "A rose."}]
    }


def test_what_is_of_no_use_is_left_out_and_counted(own_model):
    said = (
        " Why? Answer: So.",
        "Question: Please draw a house. Answer: No.",
        "I do not know.",
        "Question: Name the second thing of them. Answer: Two.",
        "Question: Tell me of [INST] tags. Answer: Yes.",
        "Question: What is a new thing? Answer: This.",
    )
    results, tasks, asked = own_model("\n".join(said), calls_per_round=2)
    assert [task["instruction"] for task in tasks] == ["What is a new thing?"]
    assert results["left_out"] == {
        "alike": 8 + 7, "chat format": 8, "length": 8, "malformed": 8, "unwanted word": 8,
    }  # fmt: skip
    assert results["calls"] == 8 and [row["calls"] for row in results["rounds"]] == [2, 2, 2, 2], "the budget is spent"
    assert [row["kept"] for row in results["rounds"]] == [1, 0, 0, 0]
    assert len({prompt for round in asked for prompt in round}) > 2, "each round shows other seeds"


def test_the_end_of_a_list_that_was_cut_off_is_not_read(own_model):
    results, tasks, _ = own_model(" What is red? Answer: A rose.\nQuestion: Where is a b", finished=False, most_calls=1)
    assert [task["instruction"] for task in tasks] == ["What is red?"]
    assert results["left_out"] == {}


def test_lists_that_do_not_fit(own_model):
    with pytest.raises(ValueError, match="none of the 3 lists of round 0 has at most 20 tokens: show fewer tasks"):
        own_model(" x", max_new_tokens=380)


def test_a_seed_task_of_two_turns(own_model):
    sources = {"made": {"function": f"{__name__}.two_turns", "format": "dialogues"}}
    with pytest.raises(ValueError, match="seed task 1 of 4: a task is one user's turn and its answer"):
        own_model(" x", seed_tasks=sources)


class Killed(BaseException):
    pass


def test_a_teacher_behind_an_address_is_asked_nothing_twice(tmp_path, monkeypatch):
    """Cut off within the second round, and started again with another cache: the first round's answers are there."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001, raising=False)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.001, raising=False)
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda path: Letters())

    def answer(messages):
        """Depends on what is asked alone; one task a call."""
        number = sum(map(ord, messages[-1]["content"]))
        words = " ".join("abcdefghij"[int(digit)] * 3 for digit in f"{number * 7919:012}")
        return f" {words}? Answer: {number}.\nQuestion: cut o"

    def run(folder, cache, server, **changes):
        chat = {"base_url": server.address, "model": "t", "key_variable": "", "cache": str(cache), "at_once": 1}
        teacher = {"function": "llama2_jax.annotation.completions.complete", "arguments": {"chat": chat | changes}}
        runtime = smallest_runtime(folder)
        results = generate_instructions.run(config(teacher=teacher, tasks=8), {"tokenizer": tmp_path}, runtime)
        return results, (folder / "tasks.jsonl").read_text()

    with ChatServer(answer) as server:
        server.faults = [500, 429]
        wanted = run(tmp_path / "whole", tmp_path / "cache", server)
        asked = len(server.requests)
        with pytest.raises(RuntimeError, match="raise the budget"):
            run(tmp_path / "cut", tmp_path / "other", server, budget=4)
        assert len(server.requests) == asked + 4
        found = run(tmp_path / "cut", tmp_path / "third", server)
    assert found == wanted
    assert len(server.requests) == asked + 4 + (asked - 2 - 3), (
        "the first round's three answers are not asked for again"
    )


@pytest.mark.parametrize(
    ("changes", "inputs", "message"),
    [
        ({}, {}, "the teacher is the input policy or the function teacher; there is neither"),
        ({"teacher": {"function": "a.b"}}, {"policy": "p"}, "the teacher is .* there is both"),
        ({"task_list": "x"}, {"policy": "p"}, "task_list='x': choose one of alpaca, questions"),
        ({"tasks_shown": 5}, {"policy": "p"}, "tasks_shown=5 of at most 4 seed tasks: give more"),
        ({"tasks_per_call": 2}, {"policy": "p"}, "tasks_per_call=2 with the tasks_shown=2: the list .* would end"),
        ({"limits": {**LIMITS, "most_words": 1}}, {"policy": "p"}, "fewest_words=2, most_words=1"),
    ],
)
def test_settings_that_cannot_work_out(changes, inputs, message):
    with pytest.raises(ValueError, match=message):
        generate_instructions.check(config(**changes), inputs, lambda sources: 4)
    generate_instructions.check(config(), {"policy": "p"}, lambda sources: 4)


def test_prompts_depend_on_the_seed_and_the_round_alone():
    first = generate_instructions.round_prompts(config(), SEEDS, 3, 5, seed=1)
    assert first == generate_instructions.round_prompts(config(), SEEDS, 3, 5, seed=1)
    assert first[:2] == generate_instructions.round_prompts(config(), SEEDS, 3, 2, seed=1)
    assert first != generate_instructions.round_prompts(config(), SEEDS, 4, 5, seed=1)
    assert all(prompt.count(QUESTIONS.opening) == 3 for prompt in first)
