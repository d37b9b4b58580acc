"""The recipe skips what is done, goes on with what is not, and refuses what has changed."""

import dataclasses
import json

import pytest
from ml_collections import ConfigDict

from experiments import rlhf_v5
from experiments.parts.scales import SCALES
from llama2_jax import recipe
from llama2_jax.data.counts import most_records
from llama2_jax.models.config import PRESETS


def experiment(**changes):
    config = ConfigDict()
    config.seed = 0
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    config.model = dataclasses.asdict(PRESETS["tiny"])
    config.data = {"root": ""}
    config.first = {"run": "tests.toy_stage", "value": 1}
    config.second = {"run": "tests.toy_stage", "value": 2, "inputs": {"start": "first"}}
    config.third = {"run": "tests.toy_stage", "value": 3, "inputs": {"both": ("first", "second")}}
    config.aside = {"run": "tests.toy_stage", "value": 4}
    config.stages = ("first", "second", "third", "aside")
    for path, value in changes.items():
        part, field = path.split("__")
        config[part][field] = value
    return config


def runs(workdir):
    return {path.parent.name: json.loads(path.read_text())["runs"] for path in workdir.glob("*/runs.json")}


def test_all_stages_run_once_and_a_second_call_runs_none(tmp_path):
    first = recipe.run(experiment(), str(tmp_path))
    second = recipe.run(experiment(), str(tmp_path))
    assert runs(tmp_path) == {"first": 1, "second": 1, "third": 1, "aside": 1}
    assert first == second
    assert first["third"]["results"]["value"] == 3
    assert {"seconds", "versions", "fingerprint", "config", "inputs"} <= first["third"].keys()
    assert first["third"]["devices"] == {"kind": "cpu", "count": 8, "processes": 1}


def test_until_ends_after_the_stage(tmp_path):
    assert list(recipe.run(experiment(), str(tmp_path), until="second")) == ["first", "second"]
    assert set(runs(tmp_path)) == {"first", "second"}


def test_a_stage_that_was_cut_off_runs_again_and_the_others_do_not(tmp_path):
    with pytest.raises(RuntimeError, match="cut off"):
        recipe.run(experiment(second__failures=1), str(tmp_path))
    recipe.run(experiment(second__failures=1), str(tmp_path))
    assert runs(tmp_path) == {"first": 1, "second": 2, "third": 1, "aside": 1}


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "cut off"])
def test_a_changed_field_is_named_and_nothing_is_lost(tmp_path, finished):
    with pytest.raises(RuntimeError) if not finished else pytest.MonkeyPatch.context():
        recipe.run(experiment(second__failures=0 if finished else 1), str(tmp_path))
    before = sorted((path, path.read_bytes()) for path in tmp_path.rglob("*.json"))
    with pytest.raises(recipe.RecipeError, match=r"config\.second\.value: was 2, is 5") as error:
        recipe.run(experiment(second__value=5, second__failures=0 if finished else 1), str(tmp_path))
    assert "--redo=second" in str(error.value)
    assert sorted((path, path.read_bytes()) for path in tmp_path.rglob("*.json")) == before


def test_a_changed_input_is_named(tmp_path):
    recipe.run(experiment(), str(tmp_path))
    config = experiment(first__value=7)
    recipe.run(config, str(tmp_path), until="first", redo="first")
    with pytest.raises(recipe.RecipeError, match="input start/first: another run"):
        recipe.run(config, str(tmp_path))


def test_a_shared_part_concerns_every_stage(tmp_path):
    recipe.run(experiment(), str(tmp_path))
    config = experiment()
    config.seed = 1
    with pytest.raises(recipe.RecipeError, match=r"config\.seed: was 0, is 1"):
        recipe.run(config, str(tmp_path))


@pytest.mark.parametrize("part", ["checkpoints", "iterations", "shards"])
def test_what_was_made_with_an_unknown_configuration_is_refused(tmp_path, part):
    (tmp_path / "second" / part / "3").mkdir(parents=True)
    with pytest.raises(recipe.RecipeError, match=rf"second has {part}, but neither .* give --redo=second"):
        recipe.run(experiment(), str(tmp_path))
    assert (tmp_path / "second" / part / "3").exists()
    recipe.run(experiment(), str(tmp_path), redo="second")
    assert not (tmp_path / "second" / part).exists()


def test_shards_are_kept_until_the_stage_is_done(tmp_path):
    config = experiment(second__failures=1, second__resumable=True)
    with pytest.raises(RuntimeError, match="cut off"):
        recipe.run(config, str(tmp_path))
    assert (tmp_path / "second" / "shards" / "kept" / "0.jsonl").exists()
    assert recipe.run(config, str(tmp_path))["second"]["results"]["made_in_run"] == 1
    assert not (tmp_path / "second" / "shards").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"config": {}}', '{"config": {"model": 3}, "inputs": {}}'])
def test_a_damaged_record_is_named(tmp_path, text):
    recipe.run(experiment(), str(tmp_path))
    (tmp_path / "second" / "stage.json").write_text(text)
    with pytest.raises(recipe.RecipeError, match=r"second/stage\.json is damaged .* give --redo=second"):
        recipe.run(experiment(), str(tmp_path))


def test_a_run_goes_on_with_a_model_that_is_computed_otherwise(tmp_path):
    with pytest.raises(RuntimeError, match="cut off"):
        recipe.run(experiment(second__failures=1), str(tmp_path))
    otherwise = {
        "model__remat": "full", "model__attention": "xla", "model__logits_chunk": 8, "model__generation_rows": 16,
        "model__consolidate_weights": False, "model__scoring_tokens": 64,
        "model__scan_layers": not PRESETS["tiny"].scan_layers,
    }  # fmt: skip
    records = recipe.run(experiment(second__failures=1, **otherwise), str(tmp_path))
    assert runs(tmp_path) == {"first": 1, "second": 2, "third": 1, "aside": 1}
    assert [records[name]["config"]["model"]["remat"] for name in ("first", "second")] == ["none", "full"]
    with pytest.raises(recipe.RecipeError, match=r"config\.model\.norm_eps: was 1e-05, is 0.001") as error:
        recipe.run(experiment(second__failures=1, model__norm_eps=1e-3, **otherwise), str(tmp_path))
    assert "remat" not in str(error.value)


def test_redo_runs_a_stage_and_what_depends_on_it(tmp_path):
    recipe.run(experiment(), str(tmp_path))
    marker = tmp_path / "second" / "left over"
    marker.touch()
    records = recipe.run(experiment(second__value=5), str(tmp_path), redo="second")
    assert records["second"]["results"]["value"] == 5
    assert not marker.exists()
    assert runs(tmp_path) == {"first": 1, "second": 1, "third": 1, "aside": 1}
    assert (tmp_path / "aside" / "runs.json").stat().st_mtime < (tmp_path / "third" / "runs.json").stat().st_mtime


def test_stages_have_seeds_of_their_own_that_do_not_depend_on_the_order(tmp_path):
    records = recipe.run(experiment(), str(tmp_path))
    seeds = {name: record["results"]["seed"] for name, record in records.items()}
    assert len(set(seeds.values())) == 4
    config = experiment()
    config.stages = ("aside", "first", "second", "third")
    again = recipe.run(config, str(tmp_path / "reordered"))
    assert {name: record["results"]["seed"] for name, record in again.items()} == seeds


@pytest.mark.parametrize("flag", ["until", "redo"])
def test_an_unknown_stage_in_a_flag(tmp_path, flag):
    with pytest.raises(recipe.RecipeError, match=f"--{flag}=fourth is not a stage.*first, second, third, aside"):
        recipe.run(experiment(), str(tmp_path), **{flag: "fourth"})


def test_an_unknown_stage_in_the_list(tmp_path):
    config = experiment()
    config.stages = ("first", "fourth")
    with pytest.raises(recipe.RecipeError, match=r"no part config\.fourth"):
        recipe.run(config, str(tmp_path))


def test_an_input_that_comes_later_in_the_list(tmp_path):
    config = experiment()
    config.stages = ("second", "first")
    with pytest.raises(recipe.RecipeError, match=r"config\.second\.inputs\.start names 'first'.*not a stage before"):
        recipe.run(config, str(tmp_path))


def test_a_stage_without_code(tmp_path):
    config = experiment()
    del config.second["run"]
    with pytest.raises(recipe.RecipeError, match=r"config\.second\.run is missing"):
        recipe.run(config, str(tmp_path))


def test_a_model_that_does_not_divide_over_the_mesh(tmp_path):
    config = experiment()
    config.mesh = {"data": 1, "fsdp": 1, "tensor": 8}
    with pytest.raises(recipe.RecipeError, match=r"model\.heads=4 over mesh\.tensor=8"):
        recipe.run(config, str(tmp_path))


def test_a_mesh_that_does_not_fit_the_devices(tmp_path):
    config = experiment()
    config.mesh = {"data": 3, "fsdp": 1, "tensor": 1}
    with pytest.raises(recipe.RecipeError, match="does not fit 8 device"):
        recipe.run(config, str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rlhf_v2_annotation.test_comparisons": 7000}, r"rlhf_v2_annotation: test_comparisons=7000, but 280 prompts"),
        ({"rlhf_v1_rejection_sampling.sweep_prompts": 10**6}, r"rlhf_v1_rejection_sampling: sweep_prompts=1000000"),
        (
            {"rlhf_v1_rejection_sampling.sweep_samples_per_prompt": 3},
            r"rlhf_v1_rejection_sampling: sweep_samples_per_prompt=3, .* the best of samples_per_prompt=8",
        ),
        ({"rlhf_v4_rejection_sampling.bag_size": 10**6}, r"rlhf_v4_rejection_sampling: bag_size=1000000 .* 4 rounds"),
        ({"pretrain.warmup_steps": 10**6}, r"pretrain: warmup_steps=1000000 in a run of at most 8000 steps"),
        ({"pretrain.accumulation": 3}, r"pretrain: accumulation=3 must divide the batch of 256"),
        ({"sft.sources.lima.limit": 64, "sft.sources.safety.limit": 64, "sft.finetune.warmup_steps": 4},
         r"sft: warmup_steps=4 in a run of at most 4 steps"),
        ({"rlhf_v1_safety_reward.warmup_fraction": 1.0}, r"rlhf_v1_safety_reward: warmup_fraction=1.0"),
        ({"rlhf_v5_ppo.critic_warmup_iterations": 100}, r"rlhf_v5_ppo: critic_warmup_iterations=100 .* iterations=100"),
        ({"rlhf_v5_ppo.minibatch_size": 1024}, r"rlhf_v5_ppo: minibatch_size=1024 must be at most batch_size=512"),
        ({"rlhf_v5_ppo.accumulation": 3}, r"rlhf_v5_ppo: accumulation=3 must divide minibatch_size=64"),
        ({"rlhf_v5_ppo.patience": 0}, r"rlhf_v5_ppo: patience=0"),
        ({"rlhf_v5_ppo.prompts.helpful.limit": 10, "rlhf_v5_ppo.prompts.harmless.limit": 10},
         r"rlhf_v5_ppo: batch_size=512 of at most 20 prompts"),
        ({"answer_tokens": 1024}, r"rlhf_v1_annotation: max_new_tokens=1024 .* config.model.max_length=1024"),
        ({"sft.run": "no.such.stage"}, r"config.sft.run='no.such.stage': .* the dotted path of a stage's module"),
        ({"sft.run": "../stage"}, r"config.sft.run='../stage': wanted the dotted path of a stage's module"),
        ({"sft.run": ""}, r"config.sft.run='': wanted the dotted path of a stage's module"),
        ({"sft.run": "os"}, r"config.sft.run='os': the module has no function run; wanted"),
        ({"model.max_length": 0}, r"model.max_length is 0; it must be a whole number of at least 1"),
        ({"pretrain.learning_rate": -1e-3}, r"pretrain: learning_rate=-0.001: wanted a number above 0"),
        ({"pretrain.optimizer.b1": 2.0}, r"pretrain: optimizer.b1=2.0: it must be a finite number, from 0 to below 1"),
        ({"pretrain.optimizer.moments_dtype": "half"}, r"pretrain: optimizer.moments_dtype is 'half'"),
        ({"pretrain.sources.web.weight": 0.0}, r"pretrain: sources: the weight of web is 0"),
        ({"sft.finetune.epochs": 0}, r"sft: finetune.epochs=0: wanted a whole number of at least 1"),
        ({"sft.finetune.batch_size": 0}, r"sft: finetune.batch_size=0"),
        ({"sft.finetune.optimizer.clip": 0.0}, r"sft: finetune.optimizer.clip=0.0: wanted a number above 0"),
        ({"sft.sources.lima.weight": 0.0, "sft.sources.safety.weight": 0.0},
         r"sft: nothing to train on: of the sources \(lima, safety\) none has a weight above 0"),
        ({"sft.held_out.lima.weight": float("nan")}, r"sft: held_out.lima: weight=nan"),
        ({"reward_models.epochs": 0}, r"annotator_helpfulness: epochs=0"),
        ({"rlhf_v1_safety_reward.kind": "harmless"}, r"rlhf_v1_safety_reward: kind='harmless': choose one of helpful"),
        ({"rlhf_v1_rejection_sampling.finetune.epochs": 0}, r"rlhf_v1_rejection_sampling: finetune.epochs=0"),
        ({"rlhf_v1_rejection_sampling.finetune.accumulation": 3}, r"rlhf_v1_rejection_sampling: accumulation=3 must"),
        ({"rlhf_v5_ppo.temperature": 0.0}, r"rlhf_v5_ppo: temperature=0.0: wanted a number above 0"),
        ({"rlhf_v5_ppo.optimizer.b2": 1.0}, r"rlhf_v5_ppo: optimizer.b2=1.0: it must be"),
        ({"evaluation.baseline": "stf"}, r"evaluation: baseline='stf': choose one of the versions, sft, rlhf_v1"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "+".join(value),
)  # fmt: skip
def test_what_cannot_work_out_is_refused_before_it_runs(changes, message):
    config = rlhf_v5.get_config("small")
    recipe.plan(config)
    config.update_from_flattened_dict(changes)
    with pytest.raises(recipe.RecipeError, match=message):
        recipe.plan(config)


def test_what_the_configuration_does_not_say_is_not_refused():
    """The records of a function, or of a file without a limit, are known when they are read."""
    config = rlhf_v5.get_config("tiny")
    config.rlhf_v1_annotation.test_comparisons = 10**6
    recipe.plan(config)


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_can_work_out(scale):
    config = rlhf_v5.get_config(scale).copy_and_resolve_references()
    for name in config.stages:
        recipe.check_stage(config, name, most_records)


def reading(path="mine.jsonl", **fields):
    config = experiment(second__failures=fields.pop("failures", 0))
    hub = {"path": "hf://datasets/org/set/x.jsonl"}
    for name in ("first", "second", "third"):
        config[name].sources = {"mine": {"path": path, "hub": hub, "format": "text"}}
    config.data.root = fields.get("root", "")
    return config


def test_a_run_reads_one_commit_and_records_it(hub, tmp_path):
    """A branch that moves in the middle of a run changes nothing, also for a stage cut off; a new run reads anew."""
    commit = hub.publish("datasets/org/set", {"x.jsonl": "{}"})
    with pytest.raises(RuntimeError, match="cut off"):
        recipe.run(reading(failures=1), str(tmp_path / "run"))
    moved = hub.publish("datasets/org/set", {"x.jsonl": "{} "})
    records = recipe.run(reading(failures=1), str(tmp_path / "run"))
    version = "hf://datasets/org/set@main"
    for name in ("first", "second", "third"):
        assert records[name]["origins"]["revisions"] == {version: commit}
        assert records[name]["origins"]["sources"] == {"sources.mine": "hf://datasets/org/set/x.jsonl"}
    assert records["aside"]["origins"] == {"sources": {}, "revisions": {}}
    other = recipe.run(reading(failures=1), str(tmp_path / "other"), until="first")
    assert other["first"]["origins"]["revisions"] == {version: moved}
    assert other["first"]["fingerprint"] != records["first"]["fingerprint"]


def test_a_download_by_hand_or_a_lost_connection_changes_no_finished_stage(hub, tmp_path):
    hub.publish("datasets/org/set", {"x.jsonl": "{}"})
    (tmp_path / "data").mkdir()
    config = reading(root=str(tmp_path / "data"))
    first = recipe.run(config, str(tmp_path / "run"), until="second")
    (tmp_path / "data/mine.jsonl").write_text("{}")
    hub.stop()
    records = recipe.run(config, str(tmp_path / "run"))
    assert {name: records[name] for name in first} == first
    assert records["third"]["origins"]["sources"] == {"sources.mine": "mine.jsonl"}
    assert runs(tmp_path / "run") == {"first": 1, "second": 1, "third": 1, "aside": 1}


def test_what_the_hub_refuses_ends_the_run_before_the_stage(hub, tmp_path):
    with pytest.raises(ValueError, match=r"hf://datasets/org/set/x\.jsonl: there is no such repository"):
        recipe.run(reading(), str(tmp_path / "run"))
    assert not runs(tmp_path / "run")
