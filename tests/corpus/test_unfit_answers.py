"""What GPT4All left out of a teacher's answers."""

import pytest

from llama2_jax.corpus.unfit_answers import problems, unfit_answer


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("Use a pot and a spoon.", ""),
        ("Use it.", "short"),
        ("How do I cook? Use a pot and a spoon.", "malformed"),
        ("Use a pot.\nHuman: And then what do I do?", "malformed"),
        ("### Response: Use a pot and a spoon.", "malformed"),
        ("Ask a human: they know it best.", ""),
        ("Run this:\n```\npot.cook()", "malformed"),
        ("Run this:\n```\npot.cook()\n```", ""),
    ],
)
def test_answers(answer, why):
    assert unfit_answer("How do I cook?", answer, fewest_words=3) == why


def dialogue(*texts):
    roles = ("user", "assistant") * len(texts)
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]}


def test_a_dialogue_is_left_out_for_one_of_its_answers():
    asked = []

    def refuses(rows):
        asked.extend(row["response"] for row in rows)
        return [row["response"].startswith("No") for row in rows]

    records = [
        dialogue("a", "one two three", "b", "four five six"),
        dialogue("a", "one two three", "b", "four"),
        dialogue("a", "No, I will not.", "b", "four"),
        {"messages": [{"role": "system", "content": "s"}, *dialogue("a", "one two three")["messages"]]},
    ]
    assert problems(records, 3, refuses) == ["", "short", "refusal", ""]
    assert len(asked) == 7
    assert problems([], 3, refuses) == []
