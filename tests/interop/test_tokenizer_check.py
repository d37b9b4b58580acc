"""A tokenizer.json is only written where it gives the ids of tokenizer.model."""

import json

import numpy as np
import pytest

from llama2_jax.interop import huggingface_export, tokenizer_check
from llama2_jax.interop.huggingface import open_huggingface
from llama2_jax.interop.huggingface_export import write_huggingface
from llama2_jax.interop.tokenizer_json import tokenizer_json
from llama2_jax.models.config import ModelConfig
from llama2_jax.text.tokenizer import Tokenizer
from tests.random_model import assert_same, in_memory, random_arrays
from tests.text.conftest import released, trained  # noqa: F401  fixtures
from tests.text.odd_lines import odd_lines
from tests.text.other_rules import RULES, train_with

CONFIG = ModelConfig(480, dim=16, layers=1, heads=2, kv_heads=1, ffn_hidden=24, max_length=32)


@pytest.fixture(params=["trained", "released"])
def llama_model(request, tmp_path):
    """The path of a tokenizer by Llama's rules."""
    path = tmp_path / "tokenizer.model"
    path.write_bytes(request.getfixturevalue(request.param)._processor.serialized_model_proto())
    return path


def test_a_llama_tokenizer_is_expressed_as_it_is(llama_model):
    assert tokenizer_check.first_difference(llama_model, tokenizer_json(llama_model)) == ""


def test_the_check_encodes_as_hugging_faces_library_does(llama_model):
    tokenizers = pytest.importorskip("tokenizers", reason="the reference is Hugging Face's tokenizers")
    content = tokenizer_json(llama_model)
    model, fast = json.loads(content)["model"], tokenizers.Tokenizer.from_str(content)
    ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(model["merges"])}
    for line in ["", " ", *odd_lines(200, seed=4)]:
        assert (
            tokenizer_check._encode(line, model["vocab"], ranks, 0) == fast.encode(line, add_special_tokens=False).ids
        )


@pytest.mark.parametrize("name", RULES)
def test_other_rules_are_seen_by_a_text(tmp_path, name):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(train_with(RULES[name]))
    difference = tokenizer_check.first_difference(path, tokenizer_json(path))
    assert " by tokenizer.model and would be [" in difference


def test_a_table_of_replacements_is_seen_where_no_sample_has_its_characters(tmp_path):
    (tmp_path / "rules.tsv").write_text("0416\t0417\n")  # Ж becomes З
    path = tmp_path / "tokenizer.model"
    path.write_bytes(train_with({"normalization_rule_tsv": str(tmp_path / "rules.tsv")}))
    assert Tokenizer.load(path).encode("Ж") == Tokenizer.load(path).encode("З")
    message = tokenizer_check.first_difference(path, tokenizer_json(path))
    assert message == "tokenizer.model replaces characters by a table of its own (normalizer_spec) before it encodes"


CONTROLS = {"control_symbols": ["<pad>", "[INST]", "<<SYS>>"]}


@pytest.mark.parametrize("rules", [CONTROLS, {"pad_id": 3}, {"pad_id": 0, "unk_id": 3}], ids=str)
def test_control_symbols_in_a_text_are_spelt(tmp_path, rules):
    tokenizers = pytest.importorskip("tokenizers", reason="the reference is Hugging Face's tokenizers")
    path = tmp_path / "tokenizer.model"
    path.write_bytes(train_with(rules))
    content, ours = tokenizer_json(path), Tokenizer.load(path)
    assert tokenizer_check.first_difference(path, content) == ""
    fast = tokenizers.Tokenizer.from_str(content)
    for text in ("[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhy? [/INST]", "<pad>", "a [INST]<pad> b"):
        assert fast.encode(text, add_special_tokens=False).ids == ours.encode(text)


def test_a_control_symbol_that_texts_have_is_seen(tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(train_with({"control_symbols": ["~"]}))
    assert tokenizer_check.first_difference(path, tokenizer_json(path)).startswith("'~' is [")


def test_weights_are_exported_without_a_tokenizer_json_that_gives_other_ids(tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(huggingface_export.logging, "warning", lambda text, *values: warnings.append(text % values))
    (tmp_path / "tokenizer.model").write_bytes(train_with(RULES["nmt_nfkc"]))
    arrays = random_arrays(CONFIG)
    target = tmp_path / "target"
    target.mkdir()
    write_huggingface(in_memory(CONFIG, arrays, tokenizer=tmp_path / "tokenizer.model"), target, np.dtype(np.float32))
    assert {path.name for path in target.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.model", "tokenizer_config.json",
    }  # fmt: skip
    assert_same(open_huggingface(target), arrays)
    (warning,) = warnings
    assert "has other rules than Llama's" in warning and "'ﬁne ﬂow" in warning and "It is left out" in warning
