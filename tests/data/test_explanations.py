"""GSM8K's worked answers, with their steps and without."""

import pytest

from llama2_jax.data.explanations import worked
from llama2_jax.evaluation.final_number import right_numbers

QUESTION = {"role": "user", "content": "How many clips altogether?"}
ANSWER = "She sold 48/2 = <<48/2=24>>24 clips.\nSo 48+24 = <<48+24=72>>72 clips.\n#### 72"
RECORD = {"messages": [QUESTION, {"role": "assistant", "content": ANSWER}], "source": "gsm8k"}


def test_the_steps_are_said_or_not_and_the_result_is_the_same():
    explained, bare = (worked(RECORD, explained=steps)["messages"] for steps in (True, False))
    assert explained[1]["content"] == "She sold 48/2 = 24 clips.\nSo 48+24 = 72 clips.\nThe answer is 72."
    assert bare == [QUESTION, {"role": "assistant", "content": "The answer is 72."}]
    rows = [{"response": said[1]["content"], "answer": ANSWER} for said in (explained, bare)]
    assert right_numbers(rows) == [True, True]


def test_it_gets_one_of_the_instructions():
    (told, *rest) = worked(RECORD, explained=True, instructions=("Think step by step.",))["messages"]
    assert told == {"role": "system", "content": "Think step by step."} and len(rest) == 2


def test_an_answer_without_a_result_is_refused():
    record = {"messages": [QUESTION, {"role": "assistant", "content": "72"}]}
    with pytest.raises(ValueError, match="the last answer has no #### before its result: '72'"):
        worked(record, explained=True)
