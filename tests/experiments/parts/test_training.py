"""Settings that stages share are changed for all of them at once, or for one of them alone."""

import pytest

from experiments import gqa_uptraining, rlhf_v5
from experiments.parts.stages import stages_with_role

ONE = "rlhf_v2_safety_reward"


def optimizers(config):
    """Each training stage's optimizer, by the stage's name."""
    parts = {name: config[name].get("finetune", config[name]) for name in config.stages}
    return {name: part.optimizer for name, part in parts.items() if "optimizer" in part}


@pytest.fixture(params=["tiny", "7b"])
def config(request):
    return rlhf_v5.get_config(request.param)


@pytest.mark.parametrize(
    ("field", "value"),
    [("b1", 0.8), ("b2", 0.99), ("eps", 1e-8), ("weight_decay", 0.0), ("clip", 2.0), ("moments_dtype", "bfloat16")],
)
def test_the_optimizer_is_overridden_for_all_or_for_one(config, field, value):
    before = config.optimizer[field]
    optimizers(config)[ONE][field] = value
    assert {name for name, one in optimizers(config).items() if one[field] != before} == {ONE}
    assert config.optimizer[field] == before
    config = rlhf_v5.get_config(config.scale)
    config.optimizer[field] = value
    assert {one[field] for one in optimizers(config).values()} == {value}
    assert len(optimizers(config)) == (20 if config.scale == "tiny" else 22)


def test_a_stages_own_value_stays_when_the_group_changes(config):
    config[ONE].optimizer.weight_decay = 0.5
    config.optimizer.weight_decay = 0.3
    assert config[ONE].optimizer.weight_decay == 0.5
    assert config.sft.finetune.optimizer.weight_decay == config.rlhf_v5_ppo.optimizer.weight_decay == 0.3


def test_uptraining_shares_the_optimizer_too():
    config = gqa_uptraining.get_config()
    config.optimizer.clip = 5.0
    assert config.uptrain.optimizer.clip == 5.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("margin", "large"), ("safety_auxiliary_weight", 0.5), ("epochs", 2), ("pairs_per_batch", 8),
        ("learning_rate", 0.5), ("warmup_steps", 9), ("warmup_fraction", 0.5), ("accumulation", 2),
        ("too_long", "drop"), ("save_every", 7), ("log_every", 3),
    ],
)  # fmt: skip
def test_settings_of_reward_models(config, field, value):
    models = [config[name] for role in ("reward_model", "annotator_model") for name in stages_with_role(config, role)]
    before = config.reward_models[field]
    config[ONE][field] = value
    assert [model[field] for model in models].count(value) == 1 and config.reward_models[field] == before
    config.reward_models[field] = value
    assert {model[field] for model in models} == {value}


def test_the_mix_of_a_kind_of_reward_model(config):
    config.reward_models.other_fraction.safety = 0.25
    models = {name: config[name] for name in stages_with_role(config, "reward_model")}
    assert {(model.kind, model.other_fraction) for model in models.values()} == {("helpfulness", 0.5), ("safety", 0.25)}


@pytest.mark.parametrize(
    ("field", "value"),
    [("batch_size", 5), ("too_long", "truncate_left"), ("evaluate_every", 5), ("held_out_batches", 2),
     ("warmup_steps", 9), ("accumulation", 2), ("save_every", 7), ("log_every", 3)],
)  # fmt: skip
def test_settings_of_fine_tuning(config, field, value):
    names = [name for role in ("finetuning", "rejection_sampling") for name in stages_with_role(config, role)]
    before = config.finetuning[field]
    config.sft.finetune[field] = value
    assert [config[name].finetune[field] for name in names].count(value) == 1 and config.finetuning[field] == before
    config.finetuning[field] = value
    assert {config[name].finetune[field] for name in names} == {value}


def test_the_safety_threshold_is_one(config):
    sampling = stages_with_role(config, "rejection_sampling")
    config.rlhf_v2_rejection_sampling.safety_threshold = 0.4
    assert config.safety_threshold == config.evaluation.safety_threshold == 0.15
    config = rlhf_v5.get_config(config.scale)
    config.safety_threshold = 0.3
    assert {config[name].safety_threshold for name in sampling} == {0.3}
    assert config.rlhf_v5_ppo.reward.arguments.safety_threshold == config.evaluation.safety_threshold == 0.3


def test_how_often_the_loss_is_measured():
    steps = {scale: rlhf_v5.get_config(scale).pretrain.evaluate_every for scale in ("tiny", "small", "1b", "70b")}
    assert steps == {"tiny": 250, "small": 500, "1b": 1000, "70b": 1000}
    config = rlhf_v5.get_config("7b")
    assert (config.sft.finetune.evaluate_every, config.sft.finetune.held_out_batches) == (100, 8)
