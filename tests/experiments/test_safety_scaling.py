"""Fine-tunings that differ in nothing but the part of the safety data, on what another run wrote."""

import pytest

from experiments import rlhf_v5, safety_scaling
from experiments.parts.stages import stages_with_role


@pytest.mark.parametrize("scale", ["tiny", "13b"])
def test_only_the_part_of_the_safety_data_differs(scale):
    """And the whole is what the last round's fine-tuning is trained on, in the same way."""
    config, source = (one.get_config(scale).copy_and_resolve_references() for one in (safety_scaling, rlhf_v5))
    own = [config[name].to_dict() for name in stages_with_role(config, "safety_scaling")]
    assert [part.pop("safety_fraction") for part in own] == [0, 0.01, 0.1, 0.25, 0.5, 1]
    last = source.rlhf_v5_rejection_sampling.to_dict()
    for part in own:
        assert part == own[0]
        assert all(part[field] == last[field] for field in ("finetune", "sources"))
        assert all(part["inputs"][role] == last["inputs"][role] for role in ("start", "dialogues"))
        assert part["inputs"]["bags"] == ("rlhf_v5_rejection_sampling",)


@pytest.mark.parametrize("argument", ["tiny", "7b"])
def test_everything_else_is_imported_from_one_run(argument):
    config, source = safety_scaling.get_config(argument), rlhf_v5.get_config(argument)
    assert config.source_run == f"runs/rlhf_v5-{argument}"
    config.source_run = "/runs/mine"
    imported = [name for name in config.stages if config[name].role in ("tokenizer", "imported")]
    assert [config[name].folder for name in imported] == [f"/runs/mine/{name}" for name in imported]
    for name in imported:
        assert name in source.stages
        assert config[name].get("records_of") in (None, source[name].role)


def test_all_are_evaluated_alike_by_the_source_run_s_reward_models():
    config, source = safety_scaling.get_config("tiny"), rlhf_v5.get_config("tiny")
    assert config.evaluation.versions == config.evaluation.inputs.models == tuple(safety_scaling.FRACTIONS)
    for kind in ("helpfulness", "safety"):
        assert config.evaluation.inputs[kind] == source.evaluation.inputs[kind]
    assert config.evaluation.prompts == source.evaluation.prompts
