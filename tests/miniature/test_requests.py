"""Every request that can be asked is understood as what was asked, and graded by rule."""

import pytest

from llama2_jax.miniature.instructions import Standing
from llama2_jax.miniature.requests import howto
from llama2_jax.miniature.requests.arithmetic import TOTALS, ArithmeticRequest
from llama2_jax.miniature.requests.comparison import ComparisonRequest
from llama2_jax.miniature.requests.fact import FactRequest
from llama2_jax.miniature.requests.item_list import ListRequest
from llama2_jax.miniature.requests.kinds import KINDS, LEVELS, ask, understand
from llama2_jax.miniature.requests.story import StoryRequest
from llama2_jax.miniature.streams import stream
from llama2_jax.miniature.world import build_world

NOBODY = Standing()


def grade(kind, request, text):
    """The grade of an answer of which nothing but what belongs to the request is left."""
    sentences = [sentence.strip() for sentence in text.split(".") if sentence.strip()]
    return KINDS[kind].grade(build_world(0), request, sentences)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", LEVELS)
def test_what_is_asked_is_understood_as_its_kind(kind, level):
    for number in range(40):
        text = ask(0, stream(number, kind, level), kind, level, demonstrated=number % 2 == 0)
        assert understand(0, text, NOBODY).kind == kind


@pytest.mark.parametrize("attack", howto.ATTACKS)
def test_every_task_is_understood_in_every_frame(attack):
    for phrase, task in build_world(0).tasks.items():
        for number in range(4):
            request = understand(0, howto.framed(stream(number), phrase, attack), NOBODY)
            assert request.details.tasks == (task,) and request.details.attack == attack
            assert (request.unsafe is not None) == task.unsafe
            assert request.borderline == (task.category == "borderline")


@pytest.mark.parametrize(
    "text", ["", "What?", "What is the capital of Nowhere?", "List three dragons.", "How do I fly?"]
)
def test_what_is_not_of_this_world_is_refused_with_the_text_and_the_seed(text):
    with pytest.raises(ValueError, match="seed 7"):
        understand(7, text, NOBODY)


def test_levels_grow():
    for level, (least, most) in TOTALS.items():
        sums = [understand(0, ask(0, stream(n), "arithmetic", level, False), NOBODY).details for n in range(200)]
        totals = {one.result if one.operation == "plus" else one.left for one in sums}
        assert totals == set(range(least, most + 1))
        compared = understand(0, ask(0, stream(1), "comparison", level, False), NOBODY).details.numbers
        assert len(compared) == max(2, level)
    for level in LEVELS:
        assert len(understand(0, ask(0, stream(1), "story", level, False), NOBODY).details.nouns) == level
        assert understand(0, ask(0, stream(1), "list", level, False), NOBODY).details.count == level + 1
    assert understand(0, ask(0, stream(1), "fact", 5, False), NOBODY).details.count == 4
    assert len(understand(0, ask(0, stream(1), "howto", 5, False), NOBODY).details.tasks) == 2


def test_demonstrated_requests_keep_to_their_half_of_the_lands():
    world = build_world(0)
    lands = {understand(0, ask(0, stream(n), "fact", 2, True), NOBODY).details.land for n in range(300)}
    assert lands == set(world.demonstrated_lands)
    assert {understand(0, ask(0, stream(n), "fact", 2, False), NOBODY).details.land for n in range(900)} == set(
        world.lands
    )


def test_facts_are_graded_by_their_share():
    world = build_world(0)
    land, other = world.lands[:2]
    facts = world.facts[land]
    two = FactRequest(land, None, 2)
    assert (
        grade("fact", two, f"The capital of {land} is {facts['capital']}. Its ruler is {facts['ruler']}").content == 1
    )
    assert grade("fact", two, f"Capital {facts['capital']}. Ruler {facts['ruler']}").content == 1
    assert grade("fact", two, f"Capital {facts['capital']}. Capital {facts['capital']}").content == 0.5
    assert grade("fact", two, f"Its capital is {facts['capital']}").content == 0.5
    wrong = f"The capital of {other} is {world.facts[other]['capital']}. Its ruler is {facts['ruler']}"
    assert grade("fact", two, wrong).content == 0.5
    one = FactRequest(land, "capital", 1)
    assert grade("fact", one, facts["capital"]).content == 1
    assert grade("fact", one, f"The ruler of {land} is {facts['ruler']}").content == 0
    assert grade("fact", one, f"It is in the {facts['region']}").reason == 1
    assert (
        0 < grade("fact", one, f"It is in the {next(r for r in ('north', 'south') if r != facts['region'])}").reason < 1
    )


def test_sums_and_their_checks():
    request = ArithmeticRequest(8, "plus", 9)
    good = grade("arithmetic", request, "Eight plus nine is seventeen. Seventeen minus nine is eight")
    assert (good.content, good.sentence, good.reason) == (1, 1, 1)
    assert grade("arithmetic", request, "Seventeen").content == 1
    assert grade("arithmetic", request, "Sixteen").content == grade("arithmetic", request, "Seven").content == 0
    assert grade("arithmetic", request, "Eighteen minus nine is eight").reason < 1
    assert grade("arithmetic", request, "Seven plus ten is seventeen").content == 0
    taken = understand(0, "What is seventeen minus nine?", NOBODY).details
    assert taken == ArithmeticRequest(17, "minus", 9) and taken.equation(8) == "Seventeen minus nine is eight."
    assert taken.check == ArithmeticRequest(8, "plus", 9)


def test_lists_count_distinct_right_items():
    request = ListRequest(3, "animals")
    assert grade("list", request, "Three animals are fox, dog and cat").content == 1
    assert grade("list", request, "Three animals are 1 fox, 2 dog and 3 cat").content == 1
    assert grade("list", request, "Three animals are 1 fox, 2 fox and 3 cat").content == pytest.approx(2 / 3)
    assert grade("list", request, "Fox, dog and cat").content == 1
    assert grade("list", request, "Fox, fox and cat").content == pytest.approx(2 / 3)
    assert grade("list", request, "Fox, dog, bread and cat").content == pytest.approx(3 / 4)
    assert grade("list", request, "Fox").content == pytest.approx(1 / 3)
    assert not grade("list", request, "I like it").attempted


def test_stories_need_a_sentence_for_each_thing():
    request = StoryRequest(("fox", "kite"))
    assert grade("story", request, "One day a fox was lost. It had a kite. In the end all were happy").content == 1
    assert grade("story", request, "One day a fox had a kite").content == 0.5
    assert grade("story", request, "Fox. Kite").content == 0
    assert grade("story", request, "It had a kite. It had a kite").content == 0.5
    assert grade("story", request, "It had a fox. It had a kite. It had a ball. It had a drum").content == 0.5


def test_comparisons_and_their_reasons():
    request = ComparisonRequest("smallest", (6, 16))
    good = grade("comparison", request, "The smallest number is six. Six is less than sixteen")
    assert (good.content, good.sentence, good.reason) == (1, 1, 1)
    assert grade("comparison", request, "Sixteen").content == 0
    assert grade("comparison", request, "Six. Six is more than sixteen").reason < 1
    assert grade("comparison", request, "Six. One is less than sixteen").reason < 1


def test_recipes_are_graded_by_their_parts():
    world = build_world(0)
    request = howto.HowtoRequest((world.tasks["bake bread"],))
    assert grade("howto", request, "To bake bread, use flour and an oven in the kitchen").content == 1
    assert grade("howto", request, "Use an oven and flour in the kitchen").content == 1
    assert grade("howto", request, "Use flour and glue in the kitchen").content == pytest.approx(2 / 3)
    assert grade("howto", request, "To sew a dress, use flour and an oven in the kitchen").content == 0
    assert grade("howto", request, "Then the bread is warm").reason == 1
    assert grade("howto", request, "Then the bread is gone").reason < 1
