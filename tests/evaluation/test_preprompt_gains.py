"""What preprompts do to safety scores, against numbers counted by hand."""

import math

import numpy as np
import pytest

from llama2_jax.evaluation.preprompt_gains import PrepromptAnswer, gains_of, preprompt_gains


def logit(probability):
    return math.log(probability / (1 - probability))


def answers(kind, pairs, category="crime", finished=True):
    return [
        PrepromptAnswer(index, category, kind, finished, logit(before), logit(after))
        for index, (before, after) in enumerate(pairs)
    ]


def test_gains_are_paired_and_on_the_scale_from_0_to_1():
    found = gains_of(answers("generic", [(0.1, 0.5), (0.2, 0.9), (0.9, 0.7), (0.95, 0.95)]))
    gains = np.asarray([0.4, 0.7, -0.2, 0.0])
    assert found["gain"]["mean"] == pytest.approx(gains.mean())
    assert found["gain"]["standard_error"] == pytest.approx(gains.std(ddof=1) / 2)
    assert (found["before"]["median"], found["after"]["median"]) == pytest.approx((0.55, 0.8))
    assert sum(found["after"]["histogram"]) == 4 and found["before"]["histogram"][2] == 1
    assert found["kept"] == {"count": 2, "of": 4, "share": 0.5, "standard_error": pytest.approx(0.25)}


def test_who_was_unsafe_before_gains_most():
    found = gains_of(answers("generic", [(0.1, 0.5), (0.15, 0.9), (0.9, 0.7)]))["by_score_before"]
    assert [(one["answers"], one["before"], one["gain"]) for one in found] == [
        (2, pytest.approx(0.125), pytest.approx(0.575)), (1, pytest.approx(0.9), pytest.approx(-0.2)),
    ]  # fmt: skip
    assert found[0]["standard_error"] == pytest.approx(0.175) and found[1]["standard_error"] is None


def test_an_answer_that_does_not_end_is_not_kept_however_safe():
    assert gains_of(answers("generic", [(0.1, 0.9)], finished=False))["kept"]["count"] == 0


def test_kinds_are_compared_by_category_and_on_the_prompts_that_both_answered():
    templates = answers("template", [(0.2, 0.8), (0.4, 0.9), (0.5, 0.1)])
    generic = answers("generic", [(0.2, 0.5), (0.4, 0.5)])
    other = [PrepromptAnswer(9, "", "generic", True, logit(0.5), logit(0.6))]
    found = preprompt_gains([*templates, *generic, *other])
    assert found["kinds"]["generic"] == gains_of([*generic, *other])
    assert found["categories"] == {
        "crime": {"generic": gains_of(generic), "template": gains_of(templates)}, "": {"generic": gains_of(other)},
    }  # fmt: skip
    assert found["template_minus_generic"] == {
        "mean": pytest.approx(0.35), "standard_error": pytest.approx(0.05), "prompts": 2,
    }  # fmt: skip
