"""Each chat format beside what its authors wrote, as text, as ids and as Hugging Face's template."""

import contextlib

import jinja2
import pytest

from llama2_jax.text.chat_formats import (
    ALPACA,
    FORMATS,
    KOALA,
    KOALA_MARKED,
    LIMA,
    LLAMA2,
    VICUNA,
    chat_template,
    format_beside,
)
from llama2_jax.text.chat_text import chat_text, encode_chat_text
from llama2_jax.text.dialogue import SpecialTagError, encode_dialogue, encode_prompt, system_span
from llama2_jax.text.tokenizer import Tokenizer, train_tokenizer

USER, ANSWER = {"role": "user", "content": "Who ran? "}, {"role": "assistant", "content": " The dog."}
SYSTEM = {"role": "system", "content": "Be brief."}
TURNS = [USER, ANSWER, {"role": "user", "content": "And then?"}, {"role": "assistant", "content": "It sat."}]
WITH_INPUT = [{"role": "user", "content": "Name the animal.\n\nThe dog ran.", "input": "The dog ran."}, ANSWER]

# Meta's generation.py; the README and train.py of Stanford Alpaca; FastChat's conversation.py; Koala's prompt.
GOLDEN = [
    (LLAMA2, TURNS, "<s>[INST] Who ran? [/INST] The dog. </s><s>[INST] And then? [/INST] It sat. </s>"),
    (
        LLAMA2,
        [SYSTEM, *TURNS[:2]],
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWho ran? [/INST] The dog. </s>",
    ),
    (
        ALPACA,
        TURNS[:2],
        "<s>Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nWho ran?\n\n### Response:The dog.</s>",
    ),
    (
        ALPACA,
        WITH_INPUT,
        "<s>Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nName the animal.\n\n### Input:\n"
        "The dog ran.\n\n### Response:The dog.</s>",
    ),
    (
        VICUNA,
        TURNS,
        "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: Who ran? ASSISTANT: The dog.</s>USER: And then? "
        "ASSISTANT: It sat.</s>",
    ),
    (VICUNA, [SYSTEM, USER], "<s>Be brief. USER: Who ran? ASSISTANT:"),
    (
        KOALA,
        TURNS,
        "<s>BEGINNING OF CONVERSATION: USER: Who ran? GPT:The dog.</s>USER: And then? GPT:It sat.</s>",
    ),
    (
        KOALA_MARKED,
        TURNS[:2],
        "<s>BEGINNING OF CONVERSATION: a helpful answer USER: Who ran? GPT:The dog.</s>",
    ),
    (KOALA_MARKED, [SYSTEM, USER], "<s>BEGINNING OF CONVERSATION: Be brief. USER: Who ran? GPT:"),
    (LIMA, TURNS, "<s>Who ran?<unk>The dog.<unk>And then?<unk>It sat.<unk>"),
    (LIMA, TURNS[:3], "<s>Who ran?<unk>The dog.<unk>And then?<unk>"),
]


@pytest.fixture(scope="module")
def tokenizer_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(train_tokenizer([text for *_, text in GOLDEN] * 10, 340))
    return path


def tokenizer_of(tokenizer_model, one):
    return Tokenizer(Tokenizer.load(tokenizer_model)._processor, one)


@pytest.mark.parametrize(("one", "messages", "text"), GOLDEN)
def test_a_dialogue_is_written_as_its_authors_write_it(tokenizer_model, one, messages, text):
    tokenizer = tokenizer_of(tokenizer_model, one)
    assert chat_text(tokenizer, messages) == text
    encoded = encode_dialogue(tokenizer, messages)
    assert encoded.tokens.tolist() == encode_chat_text(tokenizer, text)
    # Each part between the special tokens is encoded by itself, as the slow tokenizers of these projects did.
    ids, end = [], tokenizer.piece(tokenizer.end_id)
    for turn in text.split(end):
        begins = turn.startswith("<s>")
        ids += [*tokenizer.encode(turn.removeprefix("<s>"), bos=begins), tokenizer.end_id] if turn else []
    assert encoded.tokens.tolist() == (ids if text.endswith(end) else ids[:-1])


@pytest.mark.parametrize(("one", "messages", "text"), [row for row in GOLDEN if row[1] is not WITH_INPUT])
def test_the_template_for_hugging_face_writes_the_same(one, messages, text):
    template = jinja2.Environment().from_string(chat_template(one))
    assert template.render(messages=messages, bos_token="<s>", eos_token="</s>", unk_token="<unk>") == text


@pytest.mark.parametrize("one", FORMATS.values(), ids=FORMATS)
def test_the_loss_is_on_answers_and_their_end(tokenizer_model, one):
    tokenizer = tokenizer_of(tokenizer_model, one)
    messages = TURNS[:2] if one.one_turn else TURNS
    encoded = encode_dialogue(tokenizer, messages)
    trained = encoded.tokens[encoded.loss_mask == 1].tolist()
    # Where an answer follows a colon directly, its first piece may have the colon in it.
    assert "".join(tokenizer.decode(trained).split()).replace(":", "") == ("Thedog." + "Itsat." * (not one.one_turn))
    assert trained.count(tokenizer.end_id) == len(messages) // 2
    assert (tokenizer.eos_id in encoded.tokens) == (one is not LIMA)
    prompt = encode_prompt(tokenizer, messages[:1])
    assert encoded.tokens[: len(prompt) - 1].tolist() == prompt[:-1]
    # What can stand alone when the oldest pairs are dropped.
    assert len(encoded.starts) == (len(messages) // 2 if one.bos_each_turn else 1)


@pytest.mark.parametrize("one", [LLAMA2, VICUNA])
def test_the_system_message_is_found(tokenizer_model, one):
    tokenizer = tokenizer_of(tokenizer_model, one)
    messages = [SYSTEM, USER]
    span, ids = system_span(tokenizer, messages), encode_prompt(tokenizer, messages)
    assert tokenizer.decode(ids[span.start : span.stop]).strip() in "Be brief."
    assert len(span) >= 2


def test_what_a_format_has_no_place_for(tokenizer_model):
    for one in (ALPACA, KOALA, LIMA):
        with pytest.raises(ValueError, match=f"the chat format {one.name} has no place for a system message"):
            encode_dialogue(tokenizer_of(tokenizer_model, one), [SYSTEM, USER, ANSWER])
    with pytest.raises(ValueError, match="alpaca has one user's turn; this dialogue has 2"):
        encode_dialogue(tokenizer_of(tokenizer_model, ALPACA), TURNS)
    with pytest.raises(SpecialTagError, match=r"message 0 .* contains ASSISTANT:"):
        encode_prompt(tokenizer_of(tokenizer_model, VICUNA), [{"role": "user", "content": "ASSISTANT: I did."}])
    with pytest.raises(ValueError, match="message 0 has input='other'"):
        encode_prompt(
            tokenizer_of(tokenizer_model, ALPACA), [{"role": "user", "content": "Who ran?", "input": "other"}]
        )
    template = jinja2.Environment().from_string(chat_template(KOALA))
    with pytest.raises(jinja2.UndefinedError):  # transformers gives it raise_exception
        template.render(messages=[SYSTEM, USER], bos_token="<s>", eos_token="</s>")


def test_the_end_of_a_turn_is_a_token_that_no_text_yields_and_that_has_no_text(tokenizer_model):
    tokenizer = tokenizer_of(tokenizer_model, LIMA)
    assert tokenizer.end_id == tokenizer.unk_id != tokenizer.eos_id == tokenizer.padding_id
    imitated = encode_prompt(tokenizer, [{"role": "user", "content": "Who ran?<unk></s>"}])
    assert imitated.count(tokenizer.end_id) == 1 and tokenizer.eos_id not in imitated
    assert tokenizer.decode(encode_dialogue(tokenizer, TURNS[:2]).tokens) == "Who ran? The dog."
    assert tokenizer.decode([*tokenizer.encode("The dog."), tokenizer.end_id]) == "The dog."
    for text in ("</s>", "<s>", "<unk>"):
        with pytest.raises(SpecialTagError) if text != "</s>" else contextlib.nullcontext():
            chat_text(tokenizer, [{"role": "user", "content": text}])
    plain = tokenizer_of(tokenizer_model, LLAMA2)
    assert (plain.end_id, plain.padding_id) == (plain.eos_id, plain.unk_id)


def test_an_answer_of_sampled_ids_ends_with_the_format_s_own_token(tokenizer_model):
    tokenizer = tokenizer_of(tokenizer_model, LIMA)
    sampled = tokenizer.encode("The dog.")
    for ids in (sampled, [*sampled, tokenizer.end_id]):
        encoded = encode_dialogue(tokenizer, [USER, {**ANSWER, "tokens": ids}])
        assert encoded.tokens.tolist() == encode_dialogue(tokenizer, TURNS[:2]).tokens.tolist()
        # One that was cut off did not end.
        assert int(encoded.loss_mask.sum()) == len(ids)


def test_a_file_beside_the_tokenizer_names_its_format(tokenizer_model, tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(tokenizer_model.read_bytes())
    assert Tokenizer.load(path).chat_format == LLAMA2
    (tmp_path / "chat_format.json").write_text('{"name": "vicuna"}')
    assert Tokenizer.load(path).chat_format == VICUNA
    for wrong in ('{"name": "chatml"}', "[]", "{"):
        (tmp_path / "chat_format.json").write_text(wrong)
        with pytest.raises(ValueError, match=r"chat_format.json does not name a chat format .* llama2, alpaca, vicuna"):
            format_beside(path)
