"""Reward models that differ in the margin or in the auxiliary loss alone, on what another run wrote."""

import pytest

from experiments import reward_ablation, rlhf_v5
from experiments.parts.stages import stages_with_role


@pytest.mark.parametrize("scale", ["tiny", "13b"])
def test_only_the_margin_or_the_auxiliary_loss_differs(scale):
    config, source = (one.get_config(scale).copy_and_resolve_references() for one in (reward_ablation, rlhf_v5))
    stages = stages_with_role(config, "reward_ablation")
    found = {name: (config[name].kind, config[name].margin, config[name].safety_auxiliary_weight) for name in stages}
    assert found == {
        "no_margin": ("helpfulness", "none", 1.0),
        "small_margin": ("helpfulness", "small", 1.0),
        "large_margin": ("helpfulness", "large", 1.0),
        "no_auxiliary_loss": ("safety", "small", 0.0),
        "auxiliary_loss": ("safety", "small", 1.0),
    }
    for name in stages:
        last = source[f"rlhf_v5_{config[name].kind}_reward"].to_dict()
        last["inputs"]["start"] = "sft"
        changed = {"role": "reward_ablation", "margin": config[name].margin}
        changed["safety_auxiliary_weight"] = config[name].safety_auxiliary_weight
        assert config[name].to_dict() == last | changed
