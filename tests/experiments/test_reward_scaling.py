"""Reward models that differ in nothing but the part of the prompts, on what another run wrote."""

import pytest

from experiments import reward_scaling, rlhf_v5
from experiments.parts.stages import stages_with_role


@pytest.mark.parametrize("scale", ["tiny", "13b"])
def test_only_the_part_of_the_prompts_differs(scale):
    """And the whole is what the last round of the source run has, but for the model that it starts from."""
    config, source = (one.get_config(scale).copy_and_resolve_references() for one in (reward_scaling, rlhf_v5))
    stages = stages_with_role(config, "reward_scaling")
    for kind in ("helpfulness", "safety"):
        last = source[f"rlhf_v5_{kind}_reward"].to_dict() | {"role": "reward_scaling"}
        last["inputs"]["start"] = "sft"
        own = [config[name].to_dict() for name in stages if config[name].kind == kind]
        assert [part["prompt_fraction"] for part in own] == [0.125, 0.25, 0.5, 1.0]
        assert all(part | {"prompt_fraction": 1.0} == last for part in own)


def test_everything_but_the_reward_models_is_imported_from_one_run():
    config = reward_scaling.get_config("tiny")
    assert config.source_run == "runs/rlhf_v5-tiny"
    config.source_run = "/runs/mine"
    imported = [name for name in config.stages if config[name].role not in ("reward_scaling", "report")]
    assert [config[name].folder for name in imported] == [f"/runs/mine/{name}" for name in imported]
    assert set(imported) == {"tokenizer", "sft", *(f"rlhf_v{number}_annotation" for number in range(1, 6))}
    source = rlhf_v5.get_config("tiny")
    assert all(name in source.stages for name in imported)


def test_a_model_of_another_size_is_one_flag():
    config = reward_scaling.get_config("tiny")
    config.sft.folder = "/runs/small/sft"
    config.source_run = "/runs/mine"
    assert (config.sft.folder, config.tokenizer.folder) == ("/runs/small/sft", "/runs/mine/tokenizer")


def test_no_part_of_a_stage_that_does_not_run_is_left():
    config = reward_scaling.get_config("tiny,real")
    parts = {name for name in config if "run" in (config[name] if hasattr(config[name], "keys") else ())}
    assert parts == set(config.stages)
