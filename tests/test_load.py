"""One function loads a model with its tokenizer from any of the three kinds of folder."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import llama2_jax
from llama2_jax import convert
from llama2_jax.inference.generate import Sampling, generate
from llama2_jax.models.llama import LanguageModel, ScalarModel, parameter_shardings
from llama2_jax.sharding.mesh import make_mesh
from llama2_jax.text.dialogue import encode_prompt
from tests.talking import CONFIG, write_talking_model
from tests.text.conftest import corpus
from tests.trained_tokenizer import trained_tokenizer

QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "what is the river"}]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same model in all kinds."""
    root = tmp_path_factory.mktemp("models")
    write_talking_model(root / "orbax")
    for kind in ("huggingface", "meta"):
        convert.convert(convert.open_checkpoint(root / "orbax"), root / kind, kind)
    return root


@pytest.fixture(scope="module")
def ours(folders):
    return llama2_jax.load(folders / "orbax")


def test_config_model_parameters_and_tokenizer_are_there(ours):
    assert ours.config == CONFIG
    assert ours.tokenizer.vocab_size == CONFIG.vocab_size
    tokens = np.asarray([ours.tokenizer.encode("the river", bos=True)])
    positions = np.arange(tokens.shape[1])[None]
    logits = ours.model.apply({"params": ours.params}, tokens, positions, np.ones_like(tokens))
    assert logits.shape == (*tokens.shape, CONFIG.vocab_size)


@pytest.mark.parametrize("kind", ["orbax", "huggingface", "meta"])
def test_a_relative_path_will_do(folders, ours, kind, monkeypatch):
    monkeypatch.chdir(folders)
    assert llama2_jax.load(kind).config.dim == ours.config.dim


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["orbax", "huggingface", "meta"])
def test_sixteen_bit_weights_need_sixteen_bits_of_memory_and_say_the_same(folders, tmp_path, kind):
    convert.convert(convert.open_checkpoint(folders / "orbax"), tmp_path / kind, kind, dtype="bfloat16")
    whole = llama2_jax.load(tmp_path / kind)
    half = llama2_jax.load(tmp_path / kind, dtype=None)
    wide = kind == "orbax"  # its model.json says how it is computed; the others' weights do
    assert half.config.compute_dtype == ("float32" if wide else "bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(whole.params)} == {"float32"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(half.params)} == {half.config.compute_dtype}
    assert half.reply(QUESTION, temperature=0, max_new_tokens=20) == whole.reply(
        QUESTION, temperature=0, max_new_tokens=20
    )


@pytest.mark.parametrize("kind", ["huggingface", "meta"])
def test_every_kind_gives_the_same_model(folders, ours, kind):
    theirs = llama2_jax.load(folders / kind)
    jax.tree.map(np.testing.assert_array_equal, theirs.params, ours.params)
    assert theirs.tokenizer.encode("the river") == ours.tokenizer.encode("the river")
    sizes = (
        "vocab_size",
        "dim",
        "layers",
        "heads",
        "kv_heads",
        "ffn_hidden",
        "norm_eps",
        "rope_theta",
        "compute_dtype",
    )
    assert {name: getattr(theirs.config, name) for name in sizes} == {name: getattr(CONFIG, name) for name in sizes}
    assert theirs.reply(QUESTION, max_new_tokens=9) == ours.reply(QUESTION, max_new_tokens=9)


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["orbax", "huggingface", "meta"])
def test_a_model_on_the_hub_is_loaded_by_its_address_and_cached(folders, ours, hub, kind):
    hub.publish("org/model", {**files_of(folders / kind), "README.md": "about", "other/weights.bin": "x"})
    loaded = llama2_jax.load("hf://org/model")
    jax.tree.map(np.testing.assert_array_equal, loaded.params, ours.params)
    assert loaded.tokenizer.vocab_size == ours.tokenizer.vocab_size
    assert not {"README.md", "other/weights.bin"} & set(hub.downloads())
    hub.stop()
    assert convert.open_checkpoint("hf://org/model").kind == kind


def test_a_text_is_completed_greedily(ours):
    prompt = ours.tokenizer.encode("the river", bos=True)
    config = dataclasses.replace(ours.config, generation_rows=1)
    (sample,) = generate(
        config,
        ours.params,
        [prompt],
        Sampling(0.0, 1.0, 7),
        jax.random.key(0),
        ours.tokenizer.eos_id,
    )
    expected = ours.tokenizer.decode([*prompt, *sample.tokens])
    assert expected == "the river" + ours.complete("the river", max_new_tokens=7)


@pytest.mark.parametrize("prompt", ["the▁river", " the  river ", "the river\n"])
def test_a_completion_is_the_answer_alone(ours, prompt):
    answer = ours.complete(prompt, max_new_tokens=7)
    ids = ours._generate(ours.tokenizer.encode(prompt, bos=True), 7, 0.0, 1.0, 0)
    assert answer.strip() == ours.tokenizer.decode(ids).strip()


def test_a_reply_is_what_is_sampled_after_the_dialogue(ours):
    config = dataclasses.replace(ours.config, generation_rows=1)
    (sample,) = generate(
        config, ours.params, [encode_prompt(ours.tokenizer, QUESTION)], Sampling(0.6, 0.9, 7), jax.random.key(3),
        ours.tokenizer.eos_id,
    )  # fmt: skip
    assert ours.reply(QUESTION, max_new_tokens=7, seed=3) == ours.tokenizer.decode(sample.tokens).strip()
    texts = {ours.reply(QUESTION, max_new_tokens=7, seed=seed, temperature=1.0) for seed in range(4)}
    assert len(texts) > 1


def test_text_ends_where_the_context_is_full(ours):
    text = "the river " * 78
    assert len(ours.tokenizer.encode(text, bos=True)) == CONFIG.max_length - 2
    assert 0 < len(ours.complete(text, max_new_tokens=64)) <= 2 * 16
    with pytest.raises(ValueError, match="the model's context has 160"):
        ours.complete("the river " * 100)


@pytest.mark.parametrize("kind", [pytest.param("orbax", marks=pytest.mark.slow), "huggingface", "meta"])
def test_parameters_are_split_over_a_mesh(folders, ours, kind):
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    split = llama2_jax.load(folders / kind, mesh)
    wanted = parameter_shardings(LanguageModel(CONFIG), mesh)
    assert jax.tree.map(lambda leaf: leaf.sharding, split.params) == wanted
    jax.tree.map(np.testing.assert_array_equal, split.params, ours.params)
    if kind == "orbax":
        assert split.complete("the river", max_new_tokens=5) == ours.complete("the river", max_new_tokens=5)


def test_a_stage_of_a_run_finds_the_tokenizer_of_its_run(tmp_path):
    write_talking_model(tmp_path / "sft", tokenizer="../tokenizer")
    assert llama2_jax.load(tmp_path / "sft").tokenizer.vocab_size == CONFIG.vocab_size
    (tmp_path / "tokenizer").rename(tmp_path / "vocabulary")
    assert llama2_jax.load(tmp_path / "sft").tokenizer is None
    (tmp_path / "sft/stage.json").write_text(
        json.dumps({"inputs": {"tokenizer/vocabulary": "f", "start/pretrain": "f"}})
    )
    assert llama2_jax.load(tmp_path / "sft").tokenizer.vocab_size == CONFIG.vocab_size


def test_without_a_tokenizer_there_is_no_text(folders, tmp_path):
    shutil.copytree(folders / "orbax", tmp_path / "mute")
    (tmp_path / "mute/tokenizer.model").unlink()
    with pytest.raises(ValueError, match=r"has no tokenizer: put its tokenizer\.model into its folder"):
        llama2_jax.load(tmp_path / "mute").complete("the river")


def test_a_reward_model_gives_scores_and_no_text(tmp_path):
    write_talking_model(tmp_path, head="scalar")
    judge = llama2_jax.load(tmp_path, head="scalar")
    assert isinstance(judge.model, ScalarModel)
    with pytest.raises(ValueError, match=r"is a reward model, .* what is needed here is a language model"):
        llama2_jax.load(tmp_path, head="language")
    with pytest.raises(ValueError, match="this is a reward model, which gives scores"):
        judge.complete("the river")


def test_a_tokenizer_of_another_model_is_refused(folders, tmp_path):
    shutil.copytree(folders / "orbax", tmp_path / "mixed")
    trained_tokenizer(corpus(), CONFIG.vocab_size + 20, tmp_path / "mixed/tokenizer.model", 1.0)
    with pytest.raises(ValueError, match=r"tokenizer\.model.*500.*480"):
        llama2_jax.load(tmp_path / "mixed")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], r"has no model: found nothing; expected one of: model\.json with checkpoints/"),
        (["notes.txt"], r"has no model: found notes\.txt; expected"),
        (["model.json"], r"model\.json does not describe a model"),
    ],
)
def test_a_folder_that_holds_no_model(tmp_path, files, message):
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=message):
        llama2_jax.load(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float64"}, "dtype is 'float64'; it must be one of float32, "),
        ({"head": "reward"}, "head is 'reward'; it must be one of language, scalar, or None"),
    ],
)
def test_what_can_not_be_loaded_is_said_before_the_folder_is_read(options, message):
    with pytest.raises(ValueError, match=message):
        llama2_jax.load("there is no such folder", **options)


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("\ud800", {}, "character 0 of the text is half of a surrogate pair"),
        (["the"], {}, "of type list; wanted a string"),
        ("the", {"seed": 2**70}, "seed is 1180591620717411303424; wanted an integer from"),
        ("the", {"seed": 0.5}, "seed is 0.5"),
        ("the", {"max_new_tokens": 2.5}, "max_new_tokens is 2.5; it must be an integer"),
        ("the", {"temperature": "0.5"}, "temperature is '0.5'; it must be 0"),
        ("the", {"top_p": "1"}, "top_p is '1'; it must be above 0"),
    ],
)
def test_a_completion_says_what_is_wrong_with_its_arguments(ours, text, settings, message):
    with pytest.raises(ValueError, match=message):
        ours.complete(text, **settings)


@pytest.mark.parametrize("messages", ["hi", {"role": "user", "content": "hi"}, ["hi"], 5])
def test_a_reply_wants_a_list_of_messages(ours, messages):
    with pytest.raises(ValueError, match="a dialogue is a list of"):
        ours.reply(messages)


def test_the_package_has_what_it_has():
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        _ = llama2_jax.lode
