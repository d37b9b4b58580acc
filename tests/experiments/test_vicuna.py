"""Vicuna's settings, and two versions that differ in what the loss is on."""

import pytest

from experiments import vicuna
from experiments.parts.choice import DATA
from experiments.parts.scales import SCALES
from experiments.parts.stages import ROLES
from llama2_jax import recipe
from llama2_jax.data.counts import most_records
from llama2_jax.data.sources import read


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("scale", SCALES)
def test_stages_fit_together(scale, data):
    config = vicuna.get_config(f"{scale},{data}").copy_and_resolve_references()
    for name in config.stages:
        recipe.check_stage(config, name, most_records)
    recipe.validate(config)
    assert {config[stage].role for stage in config.stages} <= set(ROLES)
    assert config.chat_tokenizer.chat_format == "vicuna" and config.evaluation.baseline == "last_turn"


def test_the_two_differ_in_the_loss_alone():
    config = vicuna.get_config().copy_and_resolve_references()
    parts = [config[name].to_dict() for name in vicuna.LOSSES]
    losses = [part["sources"]["sharegpt"]["defaults"].pop("loss") for part in parts]
    assert losses == ["answers", "last"] and parts[0] == parts[1]


@pytest.mark.parametrize("scale", ["7b", "13b"])
def test_fastchat_s_settings(scale):
    settings = vicuna.get_config(scale).all_turns.finetune
    found = (settings.batch_size, settings.learning_rate, settings.epochs, settings.length, settings.decay)
    assert found == (128, 2e-5, 3, 2048, "cosine")
    assert (settings.warmup_fraction, settings.final_learning_rate_fraction, settings.too_long) == (0.04, 0.0, "split")
    assert settings.optimizer.weight_decay == 0.0 and settings.optimizer.clip == 1.0


def test_conversations_say_what_the_loss_is_on():
    for name, loss in vicuna.LOSSES.items():
        rows = read(vicuna.get_config()[name].sources.sharegpt, "", seed=0, kind="dialogues")
        assert {row["loss"] for row in rows} == {loss}
        assert sum(len(row["messages"]) >= 4 for row in rows) == len(rows)
