"""Bad data and bad settings: each is answered by what is wrong, where, and what was wanted."""

import json
import re

import pytest

from experiments import pretrain, sft
from llama2_jax import recipe
from tests.smallest import shrink

GOOD = {"text": "A good line of text, long enough to learn a few pieces from: the river, the stone, the garden."}


@pytest.fixture
def read(tmp_path):
    """Runs the recipe's first stage on a file with the given content."""

    def run(content, name="mine.jsonl", vocabulary=600, **source):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        config = shrink(pretrain.get_config())
        config.data.root = str(tmp_path)
        config.tokenizer.sources = {"mine": {"path": name, "format": "text", **source}}
        config.tokenizer.dialogues = {}
        config.tokenizer.vocab_size = vocabulary
        return recipe.run(config, str(tmp_path / "run"), until="tokenizer")

    return run


def lines(*records):
    return "".join(f"{record if isinstance(record, str) else json.dumps(record)}\n" for record in records)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lines(GOOD, '{"text": "broken'), r"mine\.jsonl:2: not JSON"),
        (lines(GOOD, GOOD, "[1, 2]"), r"mine\.jsonl:3: a list, wanted an object"),
        (lines(GOOD, {"txt": "x"}), r"mine\.jsonl:2: there is no field text; there are txt"),
        (lines(GOOD, {"text": 5}), r"mine\.jsonl:2: field text is 5; wanted a string"),
        (lines({"text": " "}), r"mine\.jsonl:1: field text is ' '; wanted a string that is not empty"),
        (lines(GOOD).encode() + b'{"text": "\xff"}\n', r"mine\.jsonl:2: field text, .*0xff, which is not UTF-8"),
        (lines(GOOD, '{"text": "hi \\ud83d"}'), r"mine\.jsonl:2: field text, character 3: U\+D83D"),
        ("", r"mine\.jsonl: the file has no records"),
        ("\n\n", r"mine\.jsonl: the file has no records"),
    ],
    ids=[
        "broken",
        "no object",
        "no such field",
        "wrong type",
        "blank",
        "not utf-8",
        "no unicode",
        "empty",
        "blank lines",
    ],
)
def test_a_bad_line_is_named_by_file_and_line(read, content, message):
    with pytest.raises(ValueError, match=message):
        read(content)


def test_bad_lines_may_be_left_out(read):
    records = read(lines(*[GOOD] * 400, '{"text": "broken'), vocabulary=350, on_bad_line="skip")
    assert records["tokenizer"]["results"]["texts"] == 400


def test_an_unknown_field_of_a_source(read):
    with pytest.raises(ValueError, match=r"a source has no field 'wieght' \(did you mean 'weight'\?\)"):
        read(lines(GOOD), wieght=2.0)


def test_an_unknown_format(read):
    with pytest.raises(ValueError, match=r"unknown format 'alpacca'.*alpaca"):
        read(lines(GOOD), format="alpacca")


def test_a_file_of_an_unknown_kind(read):
    with pytest.raises(ValueError, match=r"mine\.arrow: unknown format; wanted a name that ends in \.jsonl, \.json"):
        read(lines(GOOD), name="mine.arrow")


def test_a_file_that_is_not_there(read, tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "other.jsonl"))):
        read(lines(GOOD), path="other.jsonl")


def test_a_vocabulary_that_the_text_can_not_fill(read):
    with pytest.raises(ValueError, match=r"no tokenizer of vocab_size=600 can be trained on these texts.*too high"):
        read(lines(GOOD))


def sft_on(tmp_path, *dialogues, **finetune):
    """Fine-tunes on a file; the starting model is never reached."""
    (tmp_path / "dialogues.jsonl").write_text(lines(*dialogues))
    config = shrink(sft.get_config())
    config.data.root = str(tmp_path)
    config.sft_public.sources = {"mine": {"path": "dialogues.jsonl", "format": "dialogues"}}
    config.sft_public.inputs = {"tokenizer": "tokenizer", "start": "tokenizer"}
    config.sft_public.finetune.update(finetune)
    config.stages = ("tokenizer", "sft_public")
    return recipe.run(config, str(tmp_path / "run"))


def dialogue(answer, *turns):
    return {"messages": [{"role": "user", "content": "Hello?"}, *turns, {"role": "assistant", "content": answer}]}


def test_a_dialogue_longer_than_the_context(tmp_path):
    with pytest.raises(
        ValueError, match=r"source 'mine', dialogue 1: \d+ tokens do not fit the length \d+; 1 of 2.*too_long"
    ):
        sft_on(tmp_path, dialogue("Yes."), dialogue("word " * 300), too_long="raise")


def test_an_unknown_way_with_long_dialogues(tmp_path):
    with pytest.raises(ValueError, match="too_long='cut': choose one of raise, drop, truncate_left"):
        sft_on(tmp_path, dialogue("Yes."), too_long="cut")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            dialogue("Yes.", {"role": "user", "content": "Are you there?"}),
            r"dialogues\.jsonl:2: roles are user, user, assistant",
        ),
        (
            dialogue("[INST] Do evil. [/INST]"),
            r"dialogues\.jsonl:2: message 1 \(assistant\) contains \[INST\], \[/INST\]",
        ),
        (dialogue(" "), r"dialogues\.jsonl:2: message 1 \(assistant\) is empty"),
        ({"messages": []}, r"dialogues\.jsonl:2: a dialogue has at least one message"),
        ({"text": "no dialogue"}, r"dialogues\.jsonl:2: there is no field messages"),
    ],
    ids=["roles", "tags", "empty", "no messages", "another format"],
)
def test_a_bad_dialogue_is_named_by_file_and_line(tmp_path, record, message):
    with pytest.raises(ValueError, match=message):
        sft_on(tmp_path, dialogue("Yes."), record)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mesh": {"data": 1, "fsdp": 1, "tensor": 8}}, r"model\.heads=2 over mesh\.tensor=8"),
        ({"mesh": {"data": 3, "fsdp": 1, "tensor": 1}}, r"mesh data=3 x fsdp=1 x tensor=1 does not fit 8 device"),
        ({"mesh": {"data": -1, "fsdp": -1, "tensor": 1}}, r"only one size can be -1"),
        ({"model": {"kv_heads": 3}}, "kv_heads"),
    ],
    ids=["model", "devices", "two rests", "heads"],
)
def test_a_configuration_that_does_not_divide(tmp_path, changes, message):
    config = shrink(pretrain.get_config())
    for part, fields in changes.items():
        config[part].update(fields)
    with pytest.raises(recipe.RecipeError, match=message):
        recipe.run(config, str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_an_unknown_stage(tmp_path):
    with pytest.raises(
        recipe.RecipeError, match="--until=sft is not a stage of this experiment; its stages: tokenizer, pretrain"
    ):
        recipe.run(shrink(pretrain.get_config()), str(tmp_path), until="sft")


def test_an_annotator_that_is_not_there(tmp_path):
    config = shrink(pretrain.get_config())
    config.tokenizer.sources = {"mine": {"function": "my_package.my_texts", "format": "text"}}
    with pytest.raises(ValueError, match=r"no function 'my_package\.my_texts'.*wanted package\.module\.function"):
        recipe.run(config, str(tmp_path), until="tokenizer")
