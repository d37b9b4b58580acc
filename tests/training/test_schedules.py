"""Learning rates at the steps that matter."""

import math

import pytest

from llama2_jax.training.schedules import cosine, decaying


def test_cosine_of_pretraining():
    rate = cosine(peak=3e-4, steps=476_837, warmup=2000, final_fraction=0.1)
    table = {0: 3e-4 / 2000, 999: 1.5e-4, 1999: 3e-4, 2000: 3e-4, 476_836: 3e-5, 600_000: 3e-5}
    for step, wanted in table.items():
        assert rate(step) == pytest.approx(wanted, rel=1e-12), step
    # Half-way between the two, the mean of peak and final.
    assert rate(2000 + (476_837 - 1 - 2000) // 2) == pytest.approx((3e-4 + 3e-5) / 2, rel=1e-5)


def test_cosine_equals_its_formula_and_never_rises_after_the_warmup():
    rate = cosine(peak=2.0, steps=21, warmup=4, final_fraction=0.25)
    assert [rate(step) for step in range(4)] == [0.5, 1.0, 1.5, 2.0]
    for step in range(4, 21):
        assert rate(step) == pytest.approx(0.5 + 0.75 * (1 + math.cos(math.pi * (step - 4) / 16)))
    assert all(rate(step + 1) <= rate(step) for step in range(3, 30))


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (2, 1), (5, 5)])
def test_short_trainings_have_a_rate_at_every_step(steps, warmup):
    rate = cosine(1.0, steps, warmup, 0.1)
    assert all(0.1 <= rate(step) <= 1.0 for step in range(steps))
    assert rate(0) > 0


def test_warmup_longer_than_the_training_is_refused():
    with pytest.raises(ValueError, match="warmup=6 must be between 0 and steps=5"):
        cosine(1.0, 5, 6, 0.1)


def test_a_final_fraction_of_1_is_a_constant_rate():
    assert [cosine(1e-6, 400, 0, 1.0)(step) for step in (0, 1, 399, 1000)] == [1e-6] * 4


def test_lima_s_line_from_1e_5_to_1e_6():
    """Section 3: no warm-up; 15 epochs of some 32 steps."""
    rate = decaying("linear", 1e-5, 480, 0, 0.1)
    assert [rate(0), rate(479), rate(1000)] == pytest.approx([1e-5, 1e-6, 1e-6], rel=1e-12)
    differences = [rate(step) - rate(step + 1) for step in range(479)]
    assert differences == pytest.approx([(1e-5 - 1e-6) / 479] * 479, rel=1e-6)


def test_a_line_begins_behind_the_warmup():
    rate = decaying("linear", 2.0, 11, 4, 0.0)
    assert [rate(step) for step in range(11)] == pytest.approx([0.5, 1, 1.5, 2, 2, *(2 - n / 3 for n in range(1, 7))])


def test_an_unknown_decay_is_refused():
    with pytest.raises(ValueError, match="decay='steps': choose one of cosine, linear"):
        decaying("steps", 1.0, 5, 0, 0.1)
