"""Hashes of content: they depend on what is said, and on nothing else."""

import subprocess
import sys

import numpy as np
import pytest

from llama2_jax.data.content_hash import prompt_hash, uniform


def prompt(*texts, **fields):
    roles = ("user", "assistant") * len(texts)
    return [{"role": role, "content": text, **fields} for role, text in zip(roles, texts, strict=False)]


def test_a_prompt_is_its_roles_and_texts():
    asked = prompt("how?", "so", "and then?")
    assert prompt_hash(asked) == prompt_hash(prompt(" how?\n", "so", "and then? "))
    assert prompt_hash(asked) == prompt_hash(prompt("how?", "so", "and then?", source="web", tokens=[1, 2]))


@pytest.mark.parametrize(
    "other",
    [
        prompt("how?"),
        prompt("how", "so", "and then?"),
        prompt("how?", "soand", " then?"),
        [{"role": "system", "content": "how?"}, *prompt("so", "and then?")[:2]],
    ],
)
def test_another_prompt_has_another_hash(other):
    assert prompt_hash(other) != prompt_hash(prompt("how?", "so", "and then?"))


def test_text_that_is_no_unicode_has_a_hash():
    assert prompt_hash(prompt("\ud800")) != prompt_hash(prompt("\ud801"))


def test_numbers_are_uniform_and_depend_on_every_part():
    drawn = np.asarray([uniform("purpose", seed, [seed, 2]) for seed in range(4000)])
    assert drawn.min() > 0 and drawn.max() < 1
    # The mean of 4000 has a standard deviation of 0.0046, each tenth's count one of 19; five of them.
    assert abs(drawn.mean() - 0.5) < 0.023
    assert abs(np.histogram(drawn, 10, (0, 1))[0] - 400).max() < 95
    assert len({uniform("a", 1, [2]), uniform("b", 1, [2]), uniform("a", 2, [2]), uniform("a", 1, [3])}) == 4


def test_numbers_are_the_same_in_every_process():
    code = "from llama2_jax.data.content_hash import uniform; print(repr(uniform('a', 1, [2, 3])))"
    assert float(subprocess.check_output([sys.executable, "-c", code])) == uniform("a", 1, [2, 3])
