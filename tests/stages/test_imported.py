"""A model from outside the run takes the place of the stages that would have made it."""

import json
import shutil

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import llama2_jax
from experiments import sft
from llama2_jax import recipe
from llama2_jax.data.counts import most_records
from llama2_jax.stages import imported
from llama2_jax.text.chat_formats import LIMA
from llama2_jax.text.tokenizer import Tokenizer
from llama2_jax.training.model_folder import load_model
from tests.smallest import shrink, smallest_runtime
from tests.talking import CONFIG, write_talking_model
from tests.text.conftest import corpus
from tests.trained_tokenizer import trained_tokenizer


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outside") / "llama"
    write_talking_model(folder)
    return folder


def take_over(folder, workdir, **changes):
    runtime = smallest_runtime(workdir, model=CONFIG, **changes)
    return imported.run(ConfigDict({"folder": str(folder)}), {}, runtime)


@pytest.mark.slow
def test_model_and_tokenizer_are_taken_over_and_not_changed(outside, tmp_path):
    before = sorted((path, path.read_bytes()) for path in outside.rglob("*") if path.is_file())
    assert take_over(outside, tmp_path) == {"given": str(outside)}
    take_over(outside, tmp_path)  # as after an interruption
    jax.tree.map(np.testing.assert_array_equal, load_model(tmp_path).params, load_model(outside).params)
    assert (tmp_path / "tokenizer.model").read_bytes() == (outside / "tokenizer.model").read_bytes()
    assert sorted((path, path.read_bytes()) for path in outside.rglob("*") if path.is_file()) == before


def test_the_best_samples_of_a_rejection_sampling_come_with_its_model(outside, tmp_path):
    """From V4 on they are pooled with the later rounds'."""
    shutil.copytree(outside, tmp_path / "sampled")
    for name in ("samples.jsonl", "bag.jsonl", "offset.json", "metrics.jsonl"):
        (tmp_path / "sampled" / name).write_text(f"{name}\n")
    (tmp_path / "stage").mkdir()
    take_over(tmp_path / "sampled", tmp_path / "stage")
    assert {path.name: path.read_text() for path in (tmp_path / "stage").glob("*.jsonl")} == {
        name: f"{name}\n" for name in ("samples.jsonl", "bag.jsonl")
    }
    assert (tmp_path / "stage" / "offset.json").exists(), "what a reward model's scores are less comes with it too"


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    write_talking_model(folder, head="scalar")
    return folder


def as_role(role, folder, workdir, inputs=()):
    runtime = smallest_runtime(workdir, model=CONFIG)
    return imported.run(ConfigDict({"folder": str(folder), "role": role}), dict(inputs), runtime)


@pytest.mark.parametrize("role", ["pretraining", "finetuning", "rejection_sampling", "ppo"])
def test_a_reward_model_in_place_of_a_language_model_is_refused(judge, tmp_path, role):
    with pytest.raises(
        ValueError, match=rf"the model in {judge} is a reward model, .* needed here is a language model"
    ):
        as_role(role, judge, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("role", ["reward_model", "annotator_model", "general_reward_model"])
def test_a_language_model_in_place_of_a_reward_model_is_refused(outside, judge, tmp_path, role):
    with pytest.raises(ValueError, match=rf"the model in {outside} is a language model, .* here is a reward model"):
        as_role(role, outside, tmp_path)
    assert as_role(role, judge, tmp_path) == {"given": str(judge)}


def test_a_folder_without_what_the_stage_makes_is_refused(outside, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.json").write_bytes((outside / "model.json").read_bytes())
    (tmp_path / "words").mkdir()
    (tmp_path / "words/tokenizer.model").write_bytes((outside / "tokenizer.model").read_bytes())
    with pytest.raises(ValueError, match=r"model has no tokenizer\.model, which is what the stage is for"):
        as_role("tokenizer", tmp_path / "model", tmp_path)
    with pytest.raises(ValueError, match=r"words/model\.json is missing"):
        as_role("pretraining", tmp_path / "words", tmp_path)


def test_a_model_of_another_tokenizer_is_refused_with_the_flag_to_give(outside, tmp_path):
    run = tmp_path / "tokenizer"
    trained_tokenizer(corpus(seed=1), CONFIG.vocab_size, run / "tokenizer.model", 1.0)
    (tmp_path / "pretrain").mkdir()
    with pytest.raises(
        ValueError, match=rf"was trained with {outside}/tokenizer\.model.* set: --config\.given\.tokenizer={outside}$"
    ):
        as_role("pretraining", outside, tmp_path / "pretrain", {"tokenizer": run})
    (run / "tokenizer.model").write_bytes((outside / "tokenizer.model").read_bytes())
    assert as_role("pretraining", outside, tmp_path / "pretrain", {"tokenizer": run}) == {"given": str(outside)}


def test_a_given_model_keeps_the_runs_tokenizer_as_its_input(outside):
    config = recipe.with_given(experiment(outside))
    assert config.pretrain.inputs.to_dict() == {"tokenizer": "tokenizer"}
    assert "inputs" not in config.tokenizer


@pytest.mark.parametrize("name", ["tokenizer.model", "model.json"])
def test_one_of_both_is_enough(outside, tmp_path, name):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / name).write_bytes((outside / name).read_bytes())
    (tmp_path / "stage").mkdir()
    take_over(tmp_path / "part", tmp_path / "stage")
    assert (tmp_path / "stage" / name).exists()


def test_a_folder_without_either_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"has neither model\.json nor tokenizer\.model\..*llama2_jax\.convert"):
        take_over(tmp_path, tmp_path / "stage")


def test_a_model_of_the_hub_is_taken_over_whole(outside, tmp_path, hub):
    """The stage does not depend on the cache afterwards."""
    files = {str(path.relative_to(outside)): path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    commit = hub.publish("org/model", files)
    (tmp_path / "stage").mkdir()
    assert take_over(f"hf://org/model@{commit}", tmp_path / "stage") == {"given": f"hf://org/model@{commit}"}
    shutil.rmtree(tmp_path / "hub cache")
    jax.tree.map(np.testing.assert_array_equal, load_model(tmp_path / "stage").params, load_model(outside).params)
    assert (tmp_path / "stage/tokenizer.model").read_bytes() == files["tokenizer.model"]


def test_a_model_of_the_hub_in_another_format_is_to_be_converted(tmp_path, hub):
    hub.publish("org/model", {"config.json": "{}", "model.safetensors": "x"})
    with pytest.raises(ValueError, match=r"hf://org/model has neither .* --source=hf://org/model --target=<folder>"):
        take_over("hf://org/model", tmp_path / "stage")


def test_a_folder_must_be_named(tmp_path):
    with pytest.raises(ValueError, match=r"config\.the_stage\.folder is empty"):
        take_over("", tmp_path)


def test_a_model_of_other_sizes_is_refused_with_the_flags_that_fit_it(outside, tmp_path):
    runtime = smallest_runtime(tmp_path, model=CONFIG)
    other = {"model": type(CONFIG)(**{**vars(CONFIG), "layers": 3, "norm_eps": 1e-6, "max_length": 99})}
    with pytest.raises(ValueError, match=r"set: --config\.model\.layers=2 \(now 3\) --config\.model\.norm_eps=1e-05"):
        imported.run(ConfigDict({"folder": str(outside)}), {}, smallest_runtime(tmp_path, **other))
    assert not list(tmp_path.glob("*.json")), runtime


def test_a_tokenizer_of_another_size_is_refused(outside, tmp_path):
    changed = type(CONFIG)(**{**vars(CONFIG), "vocab_size": 500})
    with pytest.raises(ValueError, match=r"tokenizer\.model has 480 tokens and the model's embedding 500 rows"):
        imported.run(ConfigDict({"folder": str(outside)}), {}, smallest_runtime(tmp_path, model=changed))


def experiment(outside):
    config = shrink(sft.get_config())
    sizes = ("vocab_size", "dim", "layers", "heads", "kv_heads", "ffn_hidden")
    config.model.update({name: getattr(CONFIG, name) for name in sizes})
    config.given.update({"tokenizer": str(outside), "pretrain": str(outside)})
    return config


@pytest.mark.slow
def test_a_model_from_outside_is_fine_tuned(outside, tmp_path):
    before = sorted((path, path.read_bytes()) for path in outside.rglob("*") if path.is_file())
    records = recipe.run(experiment(outside), str(tmp_path), until="sft_public")
    assert records["pretrain"]["results"] == records["tokenizer"]["results"] == {"given": str(outside)}
    tuned, start = llama2_jax.load(tmp_path / "sft_public"), llama2_jax.load(outside)
    assert tuned.tokenizer.encode("the river") == start.tokenizer.encode("the river")
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), tuned.params, start.params)
    # A few steps of at most the learning rate 1e-3 each: near where it started, and not there.
    assert all(0 < distance < 0.1 for distance in jax.tree.leaves(moved))
    # Again: nothing to do. Thrown away and done again: the folder outside stays.
    assert recipe.run(experiment(outside), str(tmp_path), until="sft_public") == records
    recipe.run(experiment(outside), str(tmp_path), until="pretrain", redo="pretrain")
    assert sorted((path, path.read_bytes()) for path in outside.rglob("*") if path.is_file()) == before


def test_another_folder_is_another_run(outside, tmp_path):
    recipe.run(experiment(outside), str(tmp_path), until="tokenizer")
    config = experiment(outside)
    config.given.tokenizer = str(outside) + "/."
    recipe.run(config, str(tmp_path), until="tokenizer")  # another name for the same folder
    config.given.tokenizer = str(tmp_path)
    with pytest.raises(recipe.RecipeError, match=r"config\.tokenizer\.folder: was "):
        recipe.run(config, str(tmp_path), until="tokenizer")


def test_only_stages_can_be_given(outside, tmp_path):
    config = experiment(outside)
    config.stages = ("tokenizer",)
    with pytest.raises(
        recipe.RecipeError, match=r"config\.given\.pretrain: 'pretrain' is not a stage; the stages: tok"
    ):
        recipe.run(config, str(tmp_path))
    assert json.dumps(list(tmp_path.iterdir())) == "[]"


def test_the_tokenizer_s_pieces_are_taken_for_another_chat_format(outside, tmp_path):
    runtime = smallest_runtime(tmp_path, model=CONFIG)
    imported.run(ConfigDict({"folder": str(outside), "role": "tokenizer", "chat_format": "lima"}), {}, runtime)
    assert (tmp_path / "tokenizer.model").read_bytes() == (outside / "tokenizer.model").read_bytes()
    assert Tokenizer.load(tmp_path / "tokenizer.model").chat_format == LIMA
    with pytest.raises(ValueError, match="chat_format='limo': choose one of llama2"):
        imported.check(ConfigDict({"folder": "", "chat_format": "limo"}), {}, most_records)
