"""The best answer of each prompt; what rejection sampling does with it is tested with its stage."""

import numpy as np
import pytest

from llama2_jax.pipeline.best_of_n import best_of_each


@pytest.mark.parametrize("each", [1, 2, 5])
def test_the_best_finished_answer_of_each_prompt(each):
    generator = np.random.default_rng(0)
    rewards, finished = generator.normal(size=20), generator.random(20) < 0.6
    assert not finished.all() and finished.any()
    for prompt, best in enumerate(best_of_each(rewards, finished, each)):
        own = range(prompt * each, (prompt + 1) * each)
        among = [index for index in own if finished[index]] or own
        assert best == max(among, key=lambda index: rewards[index])


def test_where_none_ended_the_best_of_them_counts():
    assert best_of_each([0.1, 0.3, 0.2, -5.0], [False, False, False, True], 2) == [1, 3]
