"""The window of a dialogue has its system message and as many of the newest turns as fit."""

import pytest

from llama2_jax.inference.dialogue_window import PromptTooLongError, fit_dialogue
from llama2_jax.text.dialogue import SpecialTagError, encode_prompt
from tests.smallest import Letters

TOKENIZER = Letters()
SYSTEM = {"role": "system", "content": "be brief"}


def dialogue(turns, system=False):
    messages = [{"role": role, "content": f"{role} {turn}"} for turn in range(turns) for role in ("user", "assistant")]
    return [SYSTEM] * system + messages[:-1]


@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("longest", range(60, 400, 17))
def test_as_many_of_the_newest_turns_as_fit_are_kept(longest, system):
    messages = dialogue(6, system)
    window = fit_dialogue(TOKENIZER, messages, longest)
    assert window.tokens == encode_prompt(TOKENIZER, window.messages) and len(window.tokens) <= longest
    kept = window.messages[1:] if system else window.messages
    assert window.messages[: len(window.messages) - len(kept)] == [SYSTEM] * system
    assert kept == messages[-len(kept) :] and len(kept) == 2 * (6 - window.dropped) - 1
    if window.dropped:
        one_more = [SYSTEM] * system + messages[-len(kept) - 2 :]
        assert len(encode_prompt(TOKENIZER, one_more)) > longest


def test_a_dialogue_that_fits_is_unchanged():
    messages = dialogue(3, system=True)
    length = len(encode_prompt(TOKENIZER, messages))
    assert fit_dialogue(TOKENIZER, messages, length) == (messages, encode_prompt(TOKENIZER, messages), 0)
    assert fit_dialogue(TOKENIZER, messages, length - 1).dropped == 1


def test_a_message_that_is_too_long_by_itself_is_refused():
    messages = [SYSTEM, {"role": "user", "content": "x" * 50}]
    length = len(encode_prompt(TOKENIZER, messages))
    with pytest.raises(PromptTooLongError, match=f"has {length} tokens with the system message; there is room for 60"):
        fit_dialogue(TOKENIZER, messages, 60)


def test_messages_that_are_no_prompt_are_refused():
    with pytest.raises(SpecialTagError):
        fit_dialogue(TOKENIZER, [{"role": "user", "content": "[INST]"}], 100)
    with pytest.raises(ValueError, match="at least one message"):
        fit_dialogue(TOKENIZER, [], 100)
