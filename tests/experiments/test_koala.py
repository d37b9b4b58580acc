"""Koala: comparisons as dialogues under two markers, and the same prompts under each."""

import pytest

from experiments import koala
from experiments.parts.choice import DATA
from experiments.parts.other_recipes import HELPFUL, UNHELPFUL
from experiments.parts.scales import SCALES
from experiments.parts.stages import ROLES
from llama2_jax import recipe
from llama2_jax.data.counts import most_records
from llama2_jax.data.sources import read
from llama2_jax.text.chat_formats import KOALA_MARKED


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("scale", SCALES)
def test_stages_fit_together(scale, data):
    config = koala.get_config(f"{scale},{data}").copy_and_resolve_references()
    for name in config.stages:
        recipe.check_stage(config, name, most_records)
    recipe.validate(config)
    assert {config[stage].role for stage in config.stages} <= set(ROLES)


def test_the_format_s_own_marker_is_the_helpful_one():
    config = koala.get_config()
    assert config.chat_tokenizer.chat_format == KOALA_MARKED.name and KOALA_MARKED.default_system == HELPFUL


def test_both_answers_of_a_comparison_are_trained_on_under_their_markers():
    sources = koala.get_config().koala.sources
    better, worse = (read(sources[name], "", seed=0, kind="dialogues") for name in ("helpful", "unhelpful"))
    assert len(better) == len(worse) == 800
    for one, other in zip(better, worse, strict=True):
        assert one["messages"][1:-1] == other["messages"][1:-1] and one["messages"][-1] != other["messages"][-1]
    assert {row["messages"][0]["content"] for row in better} == {HELPFUL}
    assert {row["messages"][0]["content"] for row in worse} == {UNHELPFUL}
    chats = read(sources.sharegpt, "", seed=0, kind="dialogues")
    assert not any(row["messages"][0]["role"] == "system" for row in chats)


def test_the_same_prompts_are_asked_under_each_marker():
    config = koala.get_config()
    asked, marked = (
        read(config[name].prompts.prompts, "", seed=0, kind="prompts")
        for name in ("evaluation", "unhelpful_evaluation")
    )
    assert [row["messages"] for row in asked] == [row["messages"][1:] for row in marked]
    assert {row["messages"][0]["content"] for row in marked} == {UNHELPFUL}
    assert [row["seen"] for row in asked] == [row["seen"] for row in marked]
    first, second = (
        config[name].copy_and_resolve_references().to_dict() for name in ("evaluation", "unhelpful_evaluation")
    )
    assert [part.pop("versions") for part in (first, second)] == [("koala",), ("koala_unhelpful",)]
    for part in (first, second):
        part.pop("prompts"), part.pop("baseline")
    assert first == second
