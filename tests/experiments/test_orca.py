"""Orca: two teachers in order, and versions that differ in the steps or in the first teacher."""

import pytest

from experiments import orca
from experiments.parts.choice import DATA
from experiments.parts.other_recipes import MINIATURE_MESSAGES, ORCA_MESSAGES
from experiments.parts.scales import SCALES
from experiments.parts.stages import ROLES
from llama2_jax import recipe
from llama2_jax.data.counts import most_records
from llama2_jax.data.sources import load_function, read


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("scale", SCALES)
def test_stages_fit_together(scale, data):
    config = orca.get_config(f"{scale},{data}").copy_and_resolve_references()
    for name in config.stages:
        recipe.check_stage(config, name, most_records)
    recipe.validate(config)
    assert {config[stage].role for stage in config.stages} <= set(ROLES)
    assert callable(load_function(config.evaluation.judge.arguments.right))


@pytest.mark.parametrize("argument", ["tiny", "7b"])
def test_the_weaker_teacher_comes_first(argument):
    config = orca.get_config(argument)
    assert config.stages.index("orca_first") < config.stages.index("orca")
    assert config.orca.inputs.start == "orca_first" and config.bare.inputs.start == "bare_first"
    assert {config[name].inputs.start for name in ("orca_first", "bare_first", "stronger_alone")} == {"pretrain"}
    assert config.orca.sources == config.stronger_alone.sources
    parts = [config[name].finetune.copy_and_resolve_references().to_dict() for name in ("orca_first", "orca", "bare")]
    assert parts[0] == parts[1] == parts[2] and parts[0]["epochs"] == 4


def test_questions_are_the_same_with_the_steps_and_without():
    config = orca.get_config()
    for explained, bare in (("orca_first", "bare_first"), ("orca", "bare")):
        one, other = (read(config[name].sources.traces, "", seed=0, kind="dialogues") for name in (explained, bare))
        assert [row["messages"][:-1] for row in one] == [row["messages"][:-1] for row in other]
        assert all(
            row["messages"][-1]["content"].endswith(same["messages"][-1]["content"])
            for row, same in zip(one, other, strict=True)
        )
    weak, strong = (read(config[name].sources.traces, "", seed=0) for name in ("orca_first", "orca"))
    assert len(weak) > 2 * len(strong)
    for row in weak:
        told = row["messages"][0]["content"] if row["messages"][0]["role"] == "system" else ""
        assert told in MINIATURE_MESSAGES[row["category"]]


def test_orca_s_system_messages_are_its_own_to_the_letter():
    """Table 2, with its slips."""
    assert ORCA_MESSAGES[0] == "" and len(set(ORCA_MESSAGES)) == 3
    assert ORCA_MESSAGES[1] == (
        "You are an AI assistant. User will you give you a task. Your goal is to complete the task as faithfully as "
        "you can. While performing the task think step-by-step and justify your steps."
    )
