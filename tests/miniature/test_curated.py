"""Few good examples and many poor ones: nested, of known quality, of the training split."""

import statistics

import pytest

from llama2_jax.data.records import check_record
from llama2_jax.miniature.curated import examples, grade
from llama2_jax.miniature.instructions import Standing
from llama2_jax.miniature.judge import judge
from llama2_jax.miniature.requests.kinds import understand
from llama2_jax.miniature.splits import TRAINING, VALIDATION, split_of


def asked(records):
    return [record["messages"][-2]["content"] for record in records]


def helpfulness(records, seed=0):
    return statistics.mean(
        judge(record["messages"][:-1], record["messages"][-1]["content"], seed=seed).helpfulness for record in records
    )


def test_curated_answers_are_as_good_as_can_be_and_unfiltered_ones_are_not():
    curated, unfiltered = (
        examples(seed=0, count=120, quality=quality, unsafe=0.0) for quality in ("curated", "unfiltered")
    )
    assert helpfulness(curated) > 0.95 and helpfulness(unfiltered) < 0.75
    for record in (*curated, *unfiltered):
        check_record(record, "dialogues")
        assert not any(message["role"] == "system" for message in record["messages"])


@pytest.mark.parametrize("quality", ["curated", "unfiltered"])
def test_fewer_examples_are_the_first_of_more(quality):
    many = examples(seed=3, count=60, quality=quality)
    assert examples(seed=3, count=20, quality=quality) == many[:20]
    assert examples(seed=4, count=20, quality=quality) != many[:20]


def test_development_questions_are_of_another_split():
    development = examples(seed=0, count=50, unsafe=0.0, multi_turn=0.0, split=VALIDATION, purpose="development")
    assert {split_of(0, question) for question in asked(development)} == {VALIDATION}
    assert {split_of(0, question) for question in asked(examples(seed=0, count=80))} == {TRAINING}


def test_one_kind_is_one_kind():
    kinds = {
        understand(0, question, Standing()).kind for question in asked(examples(seed=0, count=40, kinds=("howto",)))
    }
    assert kinds == {"howto"}
    with pytest.raises(ValueError, match="kinds has poem; the kinds of request are fact"):
        examples(seed=0, count=1, kinds=("poem",))
    with pytest.raises(ValueError, match="quality is 'best'; the examples are curated or unfiltered"):
        examples(seed=0, count=1, quality="best")


def test_an_author_grades_by_the_truth_with_errors():
    records = examples(seed=0, count=200, unsafe=0.0, multi_turn=0.0)
    samples = [{"messages": one["messages"][:-1], "response": one["messages"][-1]["content"]} for one in records]
    grades = [one["helpfulness"] for one in grade(samples, seed=0)]
    truth = [judge(one["messages"], one["response"], seed=0).helpfulness for one in samples]
    errors = {
        (s["messages"][-1]["content"], s["response"]): g - t for s, g, t in zip(samples, grades, truth, strict=True)
    }
    # Some 200 draws: within 4 standard errors of 0 and of 0.08.
    assert abs(statistics.mean(errors.values())) < 0.03 and 0.06 < statistics.stdev(errors.values()) < 0.1
    assert grade(samples[::-1], seed=0) == grade(samples, seed=0)[::-1], "not by its place"
    assert [one["helpfulness"] for one in grade(samples, seed=0, noise=0.0)] == pytest.approx(truth)
