"""What a stage of another run wrote takes the place of a stage that would make it, whatever the size of its models."""

import json

import pytest
from ml_collections import ConfigDict

from experiments import rlhf_v5
from llama2_jax import recipe
from llama2_jax.data.counts import most_records
from llama2_jax.stages import imported_records
from llama2_jax.stages.imported_records import RECORDS
from tests.smallest import smallest_runtime

BAG = "rlhf_v1_rejection_sampling"


@pytest.fixture
def other(tmp_path):
    """The workdir of another run, with models of 80 layers: its tokenizer and a finished stage of each role."""
    workdir = tmp_path / "other"
    (workdir / "tokenizer").mkdir(parents=True)
    (workdir / "tokenizer" / "tokenizer.model").write_bytes(b"pieces")
    for role, names in RECORDS.items():
        stage = f"rlhf_v1_{role}"
        folder = workdir / stage
        folder.mkdir()
        for name in names:
            (folder / name).write_text(json.dumps({"file": name, "role": role}) + "\n")
        record = {
            "stage": stage,
            "fingerprint": "f00",
            "config": {"seed": 0, "model": {"layers": 80}, stage: {"role": role, "round": 1}},
            "inputs": {"tokenizer/tokenizer": "a1b2"},
            "results": {"rows": 1},
        }
        (folder / "stage.json").write_text(json.dumps(record))
    return workdir


@pytest.fixture
def take_over(tmp_path):
    """Runs the stage in a run whose tokenizer has the given content."""

    def run(folder, records_of="rejection_sampling", tokenizer=b"pieces", **changes):
        (tmp_path / "tokenizer").mkdir(exist_ok=True)
        (tmp_path / "tokenizer" / "tokenizer.model").write_bytes(tokenizer)
        (tmp_path / "the_stage").mkdir(exist_ok=True)
        runtime = smallest_runtime(tmp_path / "the_stage", **changes)
        config = ConfigDict({"folder": str(folder), "records_of": records_of})
        return imported_records.run(config, {"tokenizer": runtime.folder.parent / "tokenizer"}, runtime)

    return run


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("role", RECORDS)
def test_the_records_are_copied_and_the_other_run_is_left_as_it_is(other, take_over, tmp_path, role):
    before, folder = files(other), other / f"rlhf_v1_{role}"
    results = take_over(folder, role)
    assert take_over(folder, role) == results  # as after an interruption
    assert {path.name: path.read_bytes() for path in (tmp_path / "the_stage").iterdir()} == {
        name: (folder / name).read_bytes() for name in RECORDS[role]
    }
    assert results == {
        "rows": 1,
        "given": {"folder": str(folder), "fingerprint": "f00", "model": {"layers": 80}},
    }
    assert files(other) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folder": "elsewhere"}, r"elsewhere does not exist; wanted the folder of a finished stage of the role rej"),
        ({"folder": ""}, r"other is not the folder of a stage: it has no stage\.json"),
        ({"folder": "tokenizer"}, r"tokenizer is not the folder of a stage: it has no stage\.json"),
        ({"folder": "rlhf_v1_annotation"}, r"is a stage of the role annotation; wanted one of the role rejection_sam"),
        ({"records_of": "annotation"}, r"is a stage of the role rejection_sampling; wanted one of the role annotation"),
        ({"records_of": "reward_model"}, r"records_of is 'reward_model'; choose one of annotation, ranking, rej"),
        ({"tokenizer": b"others"}, r"made with another tokenizer.*--config\.given\.tokenizer=.*other/tokenizer"),
    ],
)
def test_what_does_not_fit_is_refused(other, take_over, tmp_path, change, message):
    change = dict(change)
    with pytest.raises(ValueError, match=message):
        take_over(other / change.pop("folder", BAG), **change)
    assert not list((tmp_path / "the_stage").iterdir())


def test_a_stage_that_has_not_finished(other, take_over):
    (other / BAG / "stage.json").rename(other / BAG / "started.json")
    with pytest.raises(ValueError, match=r"has not finished: it has no stage\.json"):
        take_over(other / BAG)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"stage": "a", "config": {"a": {}}, "results": {}}', "null"])
def test_a_record_that_is_damaged_or_has_no_role(other, take_over, content):
    (other / BAG / "stage.json").write_text(content)
    with pytest.raises(ValueError, match=r"stage\.json is not the record of a finished stage with a role"):
        take_over(other / BAG)


def test_a_file_of_records_is_missing(other, take_over):
    (other / BAG / "bag.jsonl").unlink()
    with pytest.raises(ValueError, match=r"has no bag\.jsonl, which a finished stage of the role rejection_"):
        take_over(other / BAG)


def test_a_run_without_its_tokenizer(other, take_over):
    (other / "tokenizer" / "tokenizer.model").unlink()
    with pytest.raises(ValueError, match=r"its run has no tokenizer\.model beside it.*restore .*other/tokenizer"):
        take_over(other / BAG)


def test_a_run_with_another_seed_is_pointed_out(other, take_over, caplog):
    with caplog.at_level("WARNING"):
        take_over(other / BAG)
        assert not caplog.records
        take_over(other / BAG, experiment_seed=3)
    assert "is of a run with seed 0, and this one has 3" in caplog.text


def test_a_stage_that_makes_records_alone_can_be_given(other):
    config = rlhf_v5.get_config()
    config.given.rlhf_v2_annotation = str(other / "rlhf_v1_annotation")
    config.given.rlhf_v3_ghost_attention = str(other / "rlhf_v1_ghost_attention")
    config.given.rlhf_v1_rejection_sampling = str(other / BAG)
    config = recipe.with_given(config)
    recipe.validate(config)
    assert config.rlhf_v2_annotation.to_dict() == {
        "run": "llama2_jax.stages.imported_records",
        "role": "annotation",
        "inputs": {"tokenizer": "tokenizer"},
        "folder": str(other / "rlhf_v1_annotation"),
        "records_of": "annotation",
        "round": 2,
    }
    assert config.rlhf_v3_ghost_attention.records_of == "ghost_attention"
    assert config.rlhf_v1_rejection_sampling.run == "llama2_jax.stages.imported"  # its model is what the rounds need


def test_how_much_is_imported_is_not_known_before_the_run(other):
    """So neither too few comparisons for the warm-up nor a bag larger than its pool are assumed."""
    config = rlhf_v5.get_config()
    config.given.rlhf_v1_annotation = str(other / "rlhf_v1_annotation")
    config.rlhf_v1_helpfulness_reward.open_preferences = {}
    config.rlhf_v4_rejection_sampling.prompts.prompts.limit = 1000
    for number in (1, 2, 3):
        config.given[f"rlhf_v{number}_rejection_sampling"] = str(other / BAG)
    config = recipe.with_given(config)
    assert config.rlhf_v4_rejection_sampling.bag_size > 1000
    for name in ("rlhf_v1_helpfulness_reward", "rlhf_v4_rejection_sampling"):
        recipe.check_stage(config, name, most_records)
