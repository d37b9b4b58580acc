"""Shared conversations: cleaned, or left out."""

import pytest

from llama2_jax.data.sharegpt import cleaned, is_english
from llama2_jax.data.sources import read

USER, ANSWER = {"role": "user", "content": "Who ran?"}, {"role": "assistant", "content": "<p>The dog.</p>"}
CLEAN = {"role": "assistant", "content": "The dog."}


def test_a_conversation_is_markdown_from_the_first_question_to_the_last_answer():
    record = {"messages": [ANSWER, USER, ANSWER, USER], "id": "x"}
    assert cleaned(record) == {"messages": [USER, CLEAN], "id": "x"}
    system = {"role": "system", "content": "Be brief."}
    assert cleaned({"messages": [system, USER, ANSWER]})["messages"] == [system, USER, CLEAN]


@pytest.mark.parametrize(
    "messages",
    [[], [ANSWER], [USER], [USER, {"role": "assistant", "content": "<p></p>"}],
     [{"role": "user", "content": "ASSISTANT: I did."}, ANSWER]],
    ids=str,
)  # fmt: skip
def test_what_has_no_answered_turn_or_imitates_a_speaker_is_left_out(messages):
    assert cleaned({"messages": messages}, without=("ASSISTANT:",)) is None


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("Who ran? The dog.", True),
        (
            "What is the capital of the land that you know, and who is the one that we can ask about it in the north?",
            True,
        ),
        ("こんにちは、元気ですか", False),
        ("Привет, как дела?", False),
        (
            "Die Hauptstadt ist eine sehr große Stadt, und dort wohnen viele Menschen, deren Namen wir heute "
            "leider nicht mehr alle wissen oder kennen, obwohl manche davon",
            False,
        ),
        ("```\nпривет = 1\n```\nWhat does this code print?", True),
        ("", True),
    ],
)
def test_english_is_known_by_its_letters_and_its_commonest_words(text, english):
    assert is_english(text) == english


def test_another_language_is_left_out_unless_it_is_wanted():
    record = {"messages": [{"role": "user", "content": "Привет"}, {"role": "assistant", "content": "Привет!"}]}
    assert cleaned(record) is None and cleaned(record, english=False) == record


def rows(*, seed):
    del seed
    shared = [
        [("gpt", "Hi."), ("human", "Who ran?"), ("gpt", "<p>The dog.</p>"), ("gpt", "It <b>ran</b>.")],
        [("human", "Привет"), ("gpt", "Привет!")],
    ]
    return [{"id": "x", "conversations": [{"from": who, "value": said} for who, said in one]} for one in shared]


def test_a_source_is_read_cleaned():
    prepare = {"function": "llama2_jax.data.sharegpt.cleaned", "arguments": {"without": ("USER:",)}}
    source = {"function": f"{__name__}.rows", "format": "sharegpt", "prepare": prepare, "defaults": {"loss": "last"}}
    (record,) = read(source, "", seed=0, kind="dialogues")
    assert record["loss"] == "last"
    assert [one["content"] for one in record["messages"]] == ["Who ran?", "The dog.\n\nIt **ran**."]
