"""The general reward model watches at every scale, is trained on open comparisons alone, and trains no policy."""

import pytest

from experiments import distillation, rlhf_v1, rlhf_v5, sft
from experiments.parts.choice import DATA, sources_of
from experiments.parts.rounds import GENERAL_REWARD
from experiments.parts.scales import SCALES
from experiments.parts.stages import stages_with_role


@pytest.fixture(params=[f"{scale},{data}" for scale in SCALES for data in DATA])
def argument(request):
    return request.param


@pytest.mark.parametrize("experiment", [rlhf_v1, rlhf_v5, distillation])
def test_it_is_trained_once_on_open_comparisons_alone(experiment, argument):
    config = experiment.get_config(argument)
    assert stages_with_role(config, "general_reward_model") == (GENERAL_REWARD,)
    part = config[GENERAL_REWARD]
    assert part.inputs.to_dict() == {"tokenizer": "tokenizer", "start": "sft", "annotations": ()}
    assert not part.preferences
    # What the other reward models read from files too, beside the comparisons of the rounds.
    other = config[stages_with_role(config, "reward_model")[0]]
    files = {**other.preferences.to_dict(), **other.open_preferences.to_dict()}
    assert part.open_preferences.to_dict() == files
    assert part.test_preferences.to_dict() == sources_of(config).general_test_preferences
    assert part.kind == "general" and part.pairs_per_batch == config.reward_models.pairs_per_batch


def test_ppo_and_the_evaluation_alone_have_it(argument):
    config = rlhf_v5.get_config(argument)
    users = {name for name in config.stages[:-1] if GENERAL_REWARD in config[name].get("inputs", {}).values()}
    assert users == {"rlhf_v5_ppo", "evaluation"}
    assert {config[name].inputs.general for name in users} == {GENERAL_REWARD}


def test_before_rlhf_there_is_none():
    assert GENERAL_REWARD not in sft.get_config().stages
