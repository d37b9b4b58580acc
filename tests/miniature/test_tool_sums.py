"""Sums to use a calculator on: what is asked is never demonstrated, and what is demonstrated is right."""

import pytest

from llama2_jax.inference.calculator import calculator
from llama2_jax.inference.number_words import in_words
from llama2_jax.miniature.splits import EVALUATION, TRAINING, split_of
from llama2_jax.miniature.tool_sums import KINDS, LARGEST_TOTAL, demonstrations, parse, questions, right_sums
from llama2_jax.miniature.words import NUMBERS
from llama2_jax.text.tool_calls import find_call

TOOLS = {"CALCULATOR": "six plus seven"}


@pytest.fixture(scope="module")
def shown():
    return [record["messages"] for record in demonstrations(seed=1, count=400, tools=TOOLS)]


def asked_of(messages):
    return messages[0]["content"].rpartition("\n")[2]


def test_the_calculator_gives_what_demonstrations_say_it_gives(shown):
    calls = 0
    for user, answer in shown:
        content, after = answer["content"], answer["content"]
        for start, end in answer.get("injected", ()):
            call = find_call(after)
            assert f'"{calculator(call.query)}"' == content[start:end]
            after, calls = content[end:], calls + 1
        assert find_call(after) is None
        total = NUMBERS[parse(asked_of([user])).totals[-1]]
        assert after.strip() == f"The answer is {total}."
    assert calls > 300


def test_demonstrations_are_with_tools_and_without_and_of_two_and_three_numbers(shown):
    with_tools = [messages for messages in shown if "CALL_API_1: TOOL_NAME" in messages[0]["content"]]
    assert 0.65 < len(with_tools) / len(shown) < 0.85
    assert all(("injected" in answer) == ("TOOL_NAME" in user["content"]) for user, answer in shown)
    assert {len(parse(asked_of(messages)).numbers) for messages in shown} == {2, 3}
    assert demonstrations(seed=1, count=5, tools=TOOLS) != demonstrations(seed=2, count=5, tools=TOOLS)


@pytest.mark.parametrize("kind", KINDS)
def test_no_question_is_demonstrated(kind, shown):
    found = questions(seed=1, kind=kind, count=200)
    terms = {parse(one["messages"][0]["content"]).term for one in found}
    assert not terms & {parse(asked_of(messages)).term for messages in shown}
    assert len({one["messages"][0]["content"] for one in found}) == len(found) >= 60
    for one in found:
        asked = parse(one["messages"][0]["content"])
        assert one["answer"] == NUMBERS[asked.totals[-1]] == calculator(asked.term)
    assert found == questions(seed=1, kind=kind, count=200)


def test_the_kinds_are_what_they_say(shown):
    unseen, larger, three = (
        [one["messages"][0]["content"] for one in questions(seed=1, kind=kind, count=50)] for kind in KINDS
    )
    assert {split_of(1, question) for question in unseen} == {EVALUATION}
    assert all(max(parse(question).totals) > LARGEST_TOTAL for question in larger)
    assert all(len(parse(question).numbers) == 3 and max(parse(question).totals) <= LARGEST_TOTAL for question in three)
    of_two = [one for messages in shown if len(parse(one := asked_of(messages)).numbers) == 2]
    assert {split_of(1, question) for question in of_two} == {TRAINING}
    with pytest.raises(ValueError, match="kind is 'x'"):
        questions(seed=1, kind="x", count=1)
    with pytest.raises(ValueError, match="no sum in"):
        parse("What is six?")


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("The answer is thirteen.", True), ("Sure. Six plus seven is thirteen. Thirteen minus seven is six.", True),
        ("Thirteen.", True), ("Let me see. Twelve.", False), ("Six plus seven is twelve.", False), ("Sure.", False),
        ('CALL_API_1: CALCULATOR | six plus seven -> "thirteen" The answer is twelve.', False), ("thirteen", True),
        ("The answer is fourteen.", False), ("", False),
    ],
)  # fmt: skip
def test_what_an_answer_states(response, right):
    row = {
        "response": response,
        "answer": "thirteen",
        "messages": [{"role": "user", "content": "Tell me six plus seven."}],
    }
    assert right_sums([row]) == [right]


def test_numbers_have_the_calculator_s_words():
    assert list(NUMBERS) == [in_words(number) for number in range(len(NUMBERS))]
