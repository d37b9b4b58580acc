"""A teacher's answers: alike in manners, nearly always right, of the split and the kinds that are asked for."""

import pytest

from llama2_jax.miniature.imitation import asked, teacher_answers
from llama2_jax.miniature.judge import judge
from llama2_jax.miniature.splits import EVALUATION, TRAINING, split_of


@pytest.mark.parametrize("kinds", [(), ("fact",), ("arithmetic",)], ids=["broad", "facts", "sums"])
def test_the_teacher_is_right_and_well_mannered(kinds):
    dialogues = teacher_answers(seed=3, count=200, kinds=kinds)
    verdicts = [judge(one["messages"][:-1], one["messages"][-1]["content"], seed=3) for one in dialogues]
    assert sum(verdict.right for verdict in verdicts) > 0.8 * 200
    assert sum(verdict.style for verdict in verdicts) > 0.7 * 200
    assert {split_of(3, one["messages"][0]["content"]) for one in dialogues} == {TRAINING}
    assert len({one["category"] for one in dialogues}) == (1 if kinds else 7)


def test_fewer_are_the_first_of_more_and_seeds_differ():
    more = teacher_answers(seed=3, count=40)
    assert teacher_answers(seed=3, count=10) == more[:10]
    assert teacher_answers(seed=4, count=40) != more


def test_prompts_have_the_teacher_s_answer_and_the_fact():
    prompts = asked(seed=3, count=300)
    assert {split_of(3, one["messages"][-1]["content"]) for one in prompts} == {EVALUATION}
    for kind in ("fact", "arithmetic"):
        known = [one for one in prompts if "answer" in one and one["category"] == kind]
        assert len(known) > 20
        for one in known:
            right = judge(one["messages"], f"{one['answer'][0].capitalize().removesuffix('.')}.", seed=3)
            assert right.right, one
        named = sum(one["answer"][0].lower().removesuffix(".") in one["reference"].lower() for one in known)
        assert named > 0.8 * len(known)
    assert {one["category"] for one in prompts if "answer" in one} == {"fact", "arithmetic"}
