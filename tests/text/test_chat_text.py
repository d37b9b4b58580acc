"""Dialogues as texts with the pieces of BOS and EOS, as the chat template writes them."""

import jinja2
import pytest

from llama2_jax.text.chat_formats import LLAMA2, chat_template
from llama2_jax.text.chat_text import chat_text, encode_chat_text, is_chat_text
from llama2_jax.text.dialogue import SpecialTagError, encode_dialogue
from llama2_jax.text.tokenizer import Tokenizer, train_tokenizer

SYSTEM = {"role": "system", "content": "Be brief."}
TURNS = [
    {"role": "user", "content": " Who ran? "},
    {"role": "assistant", "content": "The dog."},
    {"role": "user", "content": "Where to?"},
    {"role": "assistant", "content": "To the sea."},
    {"role": "user", "content": "And the cat?"},
]
DIALOGUES = [[SYSTEM, *TURNS], TURNS, TURNS[:1], TURNS[:4], [SYSTEM, *TURNS[:2]]]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    texts = ["[INST] Who ran to the sea? [/INST] The dog. And the cat? Be brief.", "<<SYS>> where to <</SYS>>"]
    path.write_bytes(train_tokenizer(texts * 20, 310))
    return Tokenizer.load(path)


@pytest.mark.parametrize("messages", DIALOGUES)
def test_the_text_is_the_templates_and_its_ids_are_the_dialogues(tokenizer, messages):
    text = chat_text(tokenizer, messages)
    template = jinja2.Environment().from_string(chat_template(LLAMA2))
    assert text == template.render(messages=messages, bos_token="<s>", eos_token="</s>")
    assert is_chat_text(tokenizer, text)
    assert encode_chat_text(tokenizer, text) == encode_dialogue(tokenizer, messages).tokens.tolist()


def test_an_answer_that_is_begun_goes_on_behind_its_text(tokenizer):
    messages = [*TURNS, {"role": "assistant", "content": "The"}]
    text = chat_text(tokenizer, messages, open_answer=True)
    assert text == chat_text(tokenizer, TURNS) + " The"
    whole = encode_dialogue(tokenizer, [*TURNS, {"role": "assistant", "content": "The cat"}]).tokens.tolist()
    assert whole[: len(encode_chat_text(tokenizer, text))] == encode_chat_text(tokenizer, text)
    with pytest.raises(ValueError, match="the last message is to be the assistant's"):
        chat_text(tokenizer, TURNS, open_answer=True)


@pytest.mark.parametrize("said", ["a <s> b", "a </s>", "[INST]"])
def test_no_message_can_begin_or_end_a_turn(tokenizer, said):
    with pytest.raises(SpecialTagError, match="message 0"):
        chat_text(tokenizer, [{"role": "user", "content": said}])


def test_other_texts_are_none(tokenizer):
    assert not is_chat_text(tokenizer, "The dog </s> <s>")
