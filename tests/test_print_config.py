"""The experiment as it would run, as text."""

import pytest
import yaml

from experiments import rlhf_v1
from llama2_jax.print_config import config_text
from llama2_jax.recipe import RecipeError


def printed(config, *arguments):
    text = config_text(config, *arguments)
    assert not any(line.rstrip() != line for line in text.splitlines())
    return yaml.safe_load(text)


@pytest.fixture
def config():
    return rlhf_v1.get_config("small")


def test_all_that_the_experiment_has_is_printed_once(config):
    found = printed(config)
    assert set(found) == set(config)
    assert found["stages"] == list(config.stages)
    assert [name for name in found if name in config.stages] == list(config.stages)
    assert found["data"] == {"name": "real", "root": ""}
    assert found["sft"]["held_out"]["lima"]["part"] == [0.98, 1.0]
    assert found["tokenizer"]["dialogues"] == {}
    text = config_text(config)
    assert all(text.count(f"\n\n{name}:\n") == 1 for name in config.stages), "a stage's part is set off"


def test_references_are_resolved(config):
    config.optimizer.weight_decay = 0.25
    config.sft.finetune.optimizer.clip = 3.5
    config.model.max_length = 99
    found = printed(config)
    assert found["optimizer"]["weight_decay"] == found["pretrain"]["optimizer"]["weight_decay"] == 0.25
    assert (found["optimizer"]["clip"], found["sft"]["finetune"]["optimizer"]["clip"]) == (1.0, 3.5)
    assert found["rlhf_v1_safety_reward"]["length"] == 99


def test_a_given_folder_is_in_its_stages_place(config):
    config.given.pretrain = "/models/llama-2-7b"
    found = printed(config)["pretrain"]
    assert (found["run"], found["folder"]) == ("llama2_jax.stages.imported", "/models/llama-2-7b")
    assert "steps" not in found


def test_a_stages_part_begins_with_what_it_is(config):
    for name in config.stages:
        fields = list(printed(config, "", [name])[name])
        assert fields[:2] == ["role", "run"] and ("inputs" not in fields or fields[2] == "inputs")


def test_chosen_stages_alone_and_in_the_order_in_which_they_run(config):
    assert list(printed(config, "", ["sft", "tokenizer"])) == ["tokenizer", "sft"]


def test_only_as_far_as_it_would_run(config):
    found = printed(config, "pretrain")
    assert found["stages"] == ["tokenizer", "pretrain"]
    assert "pretrain" in found and "sft" not in found


@pytest.mark.parametrize("arguments", [("", ["sft", "absent"]), ("absent", []), ("pretrain", ["sft"])])
def test_a_stage_that_is_not_there(config, arguments):
    with pytest.raises(RecipeError, match=r"(absent|sft).*choose from|--until=absent is not a stage"):
        config_text(config, *arguments)


def test_what_a_run_would_be_refused_for(config):
    config.sft.inputs.start = "absent"
    with pytest.raises(RecipeError, match=r"config\.sft\.inputs\.start names 'absent'"):
        config_text(config)
