"""Prompt batches: every prompt once a pass, from any point on."""

import itertools
import json

import pytest

from llama2_jax.data.prompts import prompt_batches

PROMPTS = [{"messages": [{"role": "user", "content": str(number)}]} for number in range(20)]


def numbers(batches):
    return [[int(prompt["messages"][0]["content"]) for prompt in batch] for batch in batches]


def test_each_pass_has_every_prompt_once_in_an_order_of_its_own():
    made = numbers(itertools.islice(prompt_batches(PROMPTS, 8, 0), 10))
    assert [len(batch) for batch in made] == [8] * 10
    flat = list(itertools.chain(*made))
    passes = [flat[begin : begin + 20] for begin in range(0, 80, 20)]
    assert all(sorted(one) == list(range(20)) for one in passes)
    assert passes[0] != passes[1]


def test_an_end_comes_after_the_epochs_asked_for():
    made = numbers(prompt_batches(PROMPTS, 8, 0, epochs=2))
    assert [len(batch) for batch in made] == [8] * 5
    assert [len(batch) for batch in numbers(prompt_batches(PROMPTS, 8, 0, epochs=1))] == [8, 8, 4]


@pytest.mark.parametrize("taken", [0, 1, 4, 9])
def test_a_restored_iterator_goes_on_as_if_nothing_had_happened(taken):
    whole = iter(prompt_batches(PROMPTS, 8, 0))
    for _ in range(taken):
        next(whole)
    restored = iter(prompt_batches(PROMPTS, 8, 0))
    restored.set_state(json.loads(json.dumps(whole.get_state())))
    assert numbers(itertools.islice(restored, 7)) == numbers(itertools.islice(whole, 7))


def test_the_seed_decides_the_order():
    def order(seed):
        return numbers(prompt_batches(PROMPTS, 8, seed, epochs=1))

    assert order(1) == order(1) != order(2)


def test_anything_made_of_prompts_comes_back_as_it_is():
    pairs = [(prompt, [1, number]) for number, prompt in enumerate(PROMPTS)]
    assert all(one in pairs for one in next(iter(prompt_batches(pairs, 4, 0))))


def test_what_cannot_be_batched_is_refused():
    with pytest.raises(ValueError, match="no prompts"):
        prompt_batches([], 4, 0)
    with pytest.raises(ValueError, match="batch_size=0: wanted at least 1"):
        prompt_batches(PROMPTS, 0, 0)
