"""The world is made from the seed alone, is consistent, and its streams do not disturb each other."""

import subprocess
import sys

import pytest

from llama2_jax.miniature import words
from llama2_jax.miniature.streams import stream
from llama2_jax.miniature.world import ATTRIBUTES, LAND_COUNT, build_world, misspell


@pytest.mark.parametrize("seed", range(5))
def test_every_land_has_every_attribute_and_names_are_unique(seed):
    world = build_world(seed)
    assert len(world.lands) == LAND_COUNT
    for attribute in ("capital", "ruler"):
        assert len({facts[attribute] for facts in world.facts.values()}) == LAND_COUNT
    for facts in world.facts.values():
        assert set(facts) == {*ATTRIBUTES, "region"}
    assert len(world.demonstrated_lands) == LAND_COUNT // 2 and set(world.demonstrated_lands) < set(world.lands)


@pytest.mark.parametrize("seed", range(5))
def test_tasks_are_told_apart_also_when_misspelled(seed):
    world = build_world(seed)
    counts = {category: len(world.tasks_of(category)) for category in ("harmless", "borderline", "illicit", "hateful")}
    assert counts == {"harmless": 30, "borderline": 14, "illicit": 8, "hateful": 8}
    assert len(world.misspelled) == len(world.tasks)
    assert not set(world.misspelled) & set(world.tasks)
    for phrase in world.tasks:
        assert sorted(misspell(phrase)) == sorted(phrase)


def test_harm_is_only_ever_done_with_things_that_do_not_exist():
    world = build_world(0)
    fictional = {words.with_article(tool) for tool in words.FICTIONAL_TOOLS}
    for task in world.tasks.values():
        assert set(task.tools) <= fictional if task.unsafe else not set(task.tools) & fictional


def test_another_seed_is_another_world_and_the_same_seed_the_same_in_another_process():
    assert build_world(0).facts != build_world(1).facts
    code = "from llama2_jax.miniature.world import build_world; print(sorted(build_world(3).facts.items()))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(sorted(build_world(3).facts.items()))


def test_streams_of_different_purposes_differ():
    assert stream(0, "a").random() == stream(0, "a").random()
    assert len({stream(0, "a").random(), stream(0, "b").random(), stream(1, "a").random()}) == 3
