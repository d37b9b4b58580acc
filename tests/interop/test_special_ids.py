"""Ids of BOS and EOS that are not the tokenizer's are said; what is no id is refused."""

import json

import pytest
from absl import logging

from llama2_jax.interop.checkpoint import BadCheckpoint
from llama2_jax.interop.special_ids import check_special_ids
from llama2_jax.text.tokenizer import Tokenizer

FILES = ("config.json", "generation_config.json")


@pytest.fixture
def tokenizer(tokenizer_model):
    return Tokenizer.load(tokenizer_model)  # BOS 1, EOS 2, 300 tokens


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    return said


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"bos_token_id": None, "eos_token_id": None},
        {"bos_token_id": 1, "eos_token_id": 2},
        {"eos_token_id": [2], "pad_token_id": -1},
    ],
)
@pytest.mark.parametrize("file", FILES)
def test_the_tokenizers_ids_say_nothing(tmp_path, tokenizer, warnings, file, fields):
    (tmp_path / file).write_text(json.dumps(fields))
    check_special_ids(tmp_path, tokenizer)
    assert not warnings


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"eos_token_id": 251},
            "eos_token_id is 251 in {file} and 2 in tokenizer.model. The tokenizer's are used here",
        ),
        ({"eos_token_id": [2, 251]}, "eos_token_id is [2, 251] in {file} and 2 in tokenizer.model."),
        ({"bos_token_id": 7}, "bos_token_id is 7 in {file} and 1 in tokenizer.model."),
        (
            {"bos_token_id": 0, "eos_token_id": 1},
            "bos_token_id is 0 in {file} and 1 in tokenizer.model; eos_token_id is 1 in {file} and 2",
        ),
    ],
)
@pytest.mark.parametrize("file", FILES)
def test_other_ids_are_said_once(tmp_path, tokenizer, warnings, file, fields, message):
    (tmp_path / file).write_text(json.dumps(fields))
    check_special_ids(tmp_path, tokenizer)
    (warning,) = warnings
    assert f"{tmp_path}: {message.format(file=file)}" in warning


def test_one_warning_has_both_files(tmp_path, tokenizer, warnings):
    for file, eos in zip(FILES, (5, [2, 6]), strict=True):
        (tmp_path / file).write_text(json.dumps({"eos_token_id": eos}))
    check_special_ids(tmp_path, tokenizer)
    (warning,) = warnings
    assert (
        "eos_token_id is 5 in config.json" in warning and "eos_token_id is [2, 6] in generation_config.json" in warning
    )


@pytest.mark.parametrize("value", ["2", True, 2.0, 300, -1, [], [2, "251"], [[2]], {"id": 2}], ids=repr)
@pytest.mark.parametrize("field", ["bos_token_id", "eos_token_id"])
@pytest.mark.parametrize("file", FILES)
def test_what_is_no_id_is_refused(tmp_path, tokenizer, file, field, value):
    (tmp_path / file).write_text(json.dumps({field: value}))
    with pytest.raises(BadCheckpoint) as error:
        check_special_ids(tmp_path, tokenizer)
    assert (
        str(error.value) == f"{tmp_path / file}: {field} is {value!r}, expected an id from 0 to 299, or a list of them"
    )
