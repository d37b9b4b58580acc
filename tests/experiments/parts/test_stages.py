"""Stages are found by their roles."""

import pytest
from ml_collections import ConfigDict

from experiments import distillation, gqa_uptraining, rlhf_v5
from experiments.parts.ending import newest_reward_model
from experiments.parts.stages import ROLES, add_stage, stages_with_role


def test_stages_of_each_role_in_their_order():
    config = rlhf_v5.get_config("small")
    found = {role: stages_with_role(config, role) for role in ROLES}
    assert sorted(name for names in found.values() for name in names) == sorted(config.stages)
    assert found["tokenizer"] == ("tokenizer",)
    assert found["pretraining"] == ("pretrain",)
    assert found["finetuning"] == ("sft_public", "sft")
    assert found["annotator_model"] == ("annotator_helpfulness", "annotator_safety")
    assert found["annotation"] == tuple(f"rlhf_v{number}_annotation" for number in range(1, 6))
    assert found["reward_model"] == tuple(
        f"rlhf_v{number}_{kind}_reward" for number in range(1, 6) for kind in ("helpfulness", "safety")
    )
    assert found["rejection_sampling"] == tuple(f"rlhf_v{number}_rejection_sampling" for number in range(1, 6))
    assert found["ghost_attention"] == ("rlhf_v3_ghost_attention",)
    assert found["context_distillation"] == ("rlhf_v5_context_distillation",)
    assert found["ppo"] == ("rlhf_v5_ppo",)
    assert found["imported"] == ()
    assert (found["evaluation"], found["report"]) == (("evaluation",), ("report",))


def test_uptraining_is_pretraining_of_an_imported_model():
    config = gqa_uptraining.get_config()
    assert stages_with_role(config, "imported") == ("base",)
    assert stages_with_role(config, "pretraining") == ("uptrain",)


def test_what_is_taken_from_a_teacher_s_run_is_imported():
    config = distillation.get_config("small")
    assert len(stages_with_role(config, "imported")) == 12
    assert stages_with_role(config, "rejection_sampling") == stages_with_role(config, "annotation") == ()


def test_names_do_not_matter():
    """A stage of the user's own is found by what it is, and a name that looks like another's means nothing."""
    config = ConfigDict({"stages": ()})
    add_stage(config, "mine", {"role": "reward_model", "kind": "safety", "round": 2})
    add_stage(config, "old_safety_reward", {"role": "reward_model", "kind": "safety", "round": 1})
    add_stage(config, "rlhf_v9_safety_reward", {"role": "annotator_model", "kind": "safety", "round": 9})
    add_stage(config, "helpful", {"role": "reward_model", "kind": "helpfulness", "round": 3})
    assert newest_reward_model(config, "safety") == "mine"
    assert newest_reward_model(config, "helpfulness") == "helpful"


def test_an_unknown_role():
    with pytest.raises(ValueError, match="unknown role 'reward_models'; choose one of tokenizer, "):
        stages_with_role(rlhf_v5.get_config(), "reward_models")
