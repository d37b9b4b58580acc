"""The alarm of over-optimisation, on numbers whose means and standard errors are known."""

import math

import pytest

from llama2_jax.evaluation.over_optimisation import Rewards, reward_changes

# Its mean is 0 and its standard error sqrt((4 * 1 / 3) / 4) = 0.577.
SPREAD = (1.0, -1.0, 1.0, -1.0)
ERROR = math.sqrt(1 / 3)
PROMPTS = (5.0, -40.0, 300.0, 0.0)  # how easy they are, which both policies share


def changes(optimised, general, spread=SPREAD):
    """From a policy to one whose rewards differ by `optimised` and `general` on average."""
    before = Rewards(PROMPTS, [-value for value in PROMPTS])
    return reward_changes(
        before,
        Rewards(
            [value + optimised + one for value, one in zip(before.optimised, spread, strict=True)],
            [value + general + one for value, one in zip(before.general, spread, strict=True)],
        ),
    )


def test_changes_have_paired_standard_errors():
    found = changes(2.0, -3.0)
    assert (found.prompts, found.optimised, found.general) == (4, 2.0, -3.0)
    assert (found.optimised_standard_error, found.general_standard_error) == pytest.approx((ERROR, ERROR))


@pytest.mark.parametrize(
    ("optimised", "general", "rings"),
    [
        (1.97, -1.97, True),
        (1.95, -1.97, False),  # the reward may have risen by chance
        (1.97, -1.95, False),  # the general one may have fallen by chance
        (1.97, 1.97, False),  # an honest gain
        (-1.97, -1.97, False),  # a loss, but no exploit
        (-1.97, 1.97, False),
        (0.0, 0.0, False),
    ],
)
def test_it_rings_where_one_rises_and_the_other_falls_by_1_96_standard_errors(optimised, general, rings):
    assert changes(optimised * ERROR, general * ERROR).over_optimised == rings
    # The standard error decides, and no size of a change.
    smaller = [value / 1000 for value in SPREAD]
    assert changes(optimised * ERROR / 1000, general * ERROR / 1000, smaller).over_optimised == rings


def test_changes_that_are_the_same_on_every_prompt_are_no_chance():
    assert changes(0.5, -0.5, spread=(0.0,) * 4).over_optimised
    assert not changes(0.0, -0.5, spread=(0.0,) * 4).over_optimised


def test_one_prompt_is_no_evidence():
    found = reward_changes(Rewards([0.0], [0.0]), Rewards([9.0], [-9.0]))
    assert found.general_standard_error is None and not found.over_optimised


def test_without_a_general_reward_nothing_is_compared():
    assert reward_changes(Rewards([0.0, 1.0], None), Rewards([9.0, 9.0], None)) is None


def test_both_are_compared_on_harmless_prompts():
    prompts = [{"safety": safety} for safety in (True, False, False, True)]
    assert Rewards([1, 2, 3, 4], [5, 6, 7, 8]).harmless(prompts) == Rewards([2, 3], [6, 7])
    assert Rewards([1, 2, 3, 4], None).harmless(prompts) == Rewards([2, 3], None)
    none = Rewards([1], [5]).harmless(prompts[:1])
    assert reward_changes(none, none) is None, "nothing is left to compare"


def test_answers_to_other_prompts_are_refused():
    with pytest.raises(ValueError, match="2 and 1 values cannot be paired"):
        reward_changes(Rewards([0.0], [0.0]), Rewards([9.0, 9.0], [1.0, 1.0]))


def test_it_says_both_changes_with_their_standard_errors():
    assert str(changes(2.0, -3.0)) == (
        "optimised reward +2 (standard error 0.58), general reward -3 (standard error 0.58), over 4 prompts"
    )
