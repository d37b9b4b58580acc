"""Prompt batches: every prompt occurs once an epoch; iterators resume anywhere."""

import itertools
import json

import pytest

from llama2_jax.data.prompts import prompt_batches

PROMPTS = [{"messages": [{"role": "user", "content": str(number)}]} for number in range(20)]


def numbers(batches):
    return [[int(prompt["messages"][0]["content"]) for prompt in batch] for batch in batches]


def test_each_epoch_has_every_prompt_once_in_a_new_order():
    made = numbers(itertools.islice(prompt_batches(PROMPTS, 8, 0), 10))
    assert [len(batch) for batch in made] == [8] * 10
    flat = list(itertools.chain(*made))
    epochs = [flat[begin : begin + 20] for begin in range(0, 80, 20)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("taken", [0, 1, 4, 9])
def test_a_restored_iterator_continues_identically(taken):
    whole = iter(prompt_batches(PROMPTS, 8, 0))
    for _ in range(taken):
        next(whole)
    restored = iter(prompt_batches(PROMPTS, 8, 0))
    restored.set_state(json.loads(json.dumps(whole.get_state())))
    assert numbers(itertools.islice(restored, 7)) == numbers(itertools.islice(whole, 7))


def test_the_seed_determines_the_order():
    def order(seed):
        return numbers(itertools.islice(prompt_batches(PROMPTS, 8, seed), 3))

    assert order(1) == order(1) != order(2)


def test_values_made_from_prompts_are_returned_unchanged():
    pairs = [(prompt, [1, number]) for number, prompt in enumerate(PROMPTS)]
    assert all(pair in pairs for pair in next(iter(prompt_batches(pairs, 4, 0))))


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="no prompts"):
        prompt_batches([], 4, 0)
    with pytest.raises(ValueError, match="batch_size=0: wanted at least 1"):
        prompt_batches(PROMPTS, 0, 0)
