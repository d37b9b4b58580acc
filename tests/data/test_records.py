"""A record is of its kind, or the error names what is wrong with it."""

import pytest

from llama2_jax.data.records import check_record, convert, opening

USER, ASSISTANT = {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}
GOOD = {
    "text": {"text": "t"},
    "dialogues": {"messages": [{"role": "system", "content": ""}, USER, ASSISTANT], "anything": "else"},
    "prompts": {"messages": [USER, ASSISTANT, USER], "safety": True, "category": "c"},
    "preferences": {
        "messages": [USER], "chosen": "c", "rejected": "r", "domain": "safety", "rating": "better",
        "safety_label": "both_safe",
    },
    "samples": {"messages": [USER], "response": "", "response_tokens": [2]},
    "raw": {"what": "ever"},
}  # fmt: skip


@pytest.mark.parametrize("kind", GOOD)
def test_good_records_pass(kind):
    check_record(GOOD[kind], kind)


def test_a_comparison_needs_no_rating_and_no_label():
    check_record(
        {name: GOOD["preferences"][name] for name in ("messages", "chosen", "rejected", "domain")}, "preferences"
    )


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("text", {"text": " "}, "field text is ' '; wanted a string that is not empty"),
        ("text", {"text": 3}, "field text is 3"),
        ("text", {"text": ...}, "there is no field text"),
        ("dialogues", {"messages": ...}, "there is no field messages; there are anything"),
        ("dialogues", {"messages": "hello"}, "wanted a list of"),
        ("dialogues", {"messages": []}, "at least one message"),
        ("dialogues", {"messages": [USER]}, "the last message is of 'user'; wanted 'assistant'"),
        ("dialogues", {"messages": [ASSISTANT, USER]}, "roles are assistant, user"),
        ("dialogues", {"messages": [USER, {"role": "assistant", "content": " "}]}, r"message 1 \(assistant\) is empty"),
        ("dialogues", {"messages": [{"role": "user", "content": "[INST]"}, ASSISTANT]}, "special tags"),
        ("prompts", {"messages": [USER, ASSISTANT]}, "wanted 'user'"),
        ("prompts", {"safety": "yes"}, "field safety is 'yes'; wanted true or false"),
        ("preferences", {"chosen": ...}, "there is no field chosen"),
        ("preferences", {"rejected": ""}, "field rejected is ''"),
        ("preferences", {"rejected": "x <<SYS>>"}, "special tags"),
        ("preferences", {"rejected": "c"}, "the same answer"),
        ("preferences", {"rating": "much_better"}, "field rating is 'much_better'; wanted one of significantly_better"),
        ("preferences", {"domain": ...}, "there is no field domain.*defaults"),
        ("preferences", {"domain": "humour"}, "field domain is 'humour'; wanted one of helpfulness, safety"),
        ("preferences", {"safety_label": "rejected_safe"}, "the chosen answer is unsafe and the rejected one safe"),
        ("preferences", {"safety_label": "fine"}, "wanted one of chosen_safe, both_safe, both_unsafe"),
        ("samples", {"response": None}, "field response is None"),
    ],
)
def test_wrong_records_are_refused(kind, change, message):
    record = {name: value for name, value in {**GOOD[kind], **change}.items() if value is not ...}
    with pytest.raises(ValueError, match=message):
        check_record(record, kind)


def test_answers_of_one_text_but_other_ids_differ():
    same = {**GOOD["preferences"], "rejected": "c"}
    check_record({**same, "chosen_tokens": [5, 2], "rejected_tokens": [6, 2]}, "preferences")
    with pytest.raises(ValueError, match="the same answer"):
        check_record({**same, "chosen_tokens": [5, 2], "rejected_tokens": [5, 2]}, "preferences")


def test_dialogues_become_prompts_and_answered_prompts_dialogues():
    preference, sample = GOOD["preferences"], GOOD["samples"]
    assert convert(GOOD["dialogues"], "dialogues", "prompts")["messages"] == GOOD["dialogues"]["messages"][:-1]
    assert convert(preference, "preferences", "prompts")["messages"] == [USER]
    assert convert(preference, "preferences", "dialogues")["messages"] == [USER, {"role": "assistant", "content": "c"}]
    answered = {"role": "assistant", "content": "", "tokens": [2]}
    assert convert(sample, "samples", "dialogues") == {"messages": [USER, answered]}
    assert convert(sample, "samples", "samples") is sample


@pytest.mark.parametrize(
    ("given", "wanted"), [("text", "prompts"), ("dialogues", "preferences"), ("prompts", "dialogues")]
)
def test_other_conversions_are_refused(given, wanted):
    with pytest.raises(ValueError, match="cannot be read as"):
        convert(GOOD[given], given, wanted)


def test_a_records_opening():
    assert opening(GOOD["dialogues"]) == "u"
    assert opening(GOOD["text"]) == "t"
    assert opening({"b": 1, "a": 2}) == opening({"a": 2, "b": 1})
