"""Answers end where their text does, and are those of `generate` up to there."""

import jax
import numpy as np
import pytest

from llama2_jax.inference import until as until_file
from llama2_jax.inference.generate import Sampling, generate
from llama2_jax.inference.until import STEPS, generate_until
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import LanguageModel, parameter_shardings
from llama2_jax.sharding.mesh import make_mesh
from tests.random_model import sharpened_params

CONFIG = ModelConfig(
    vocab_size=40, dim=32, layers=2, heads=4, kv_heads=2, ffn_hidden=64, max_length=192, scan_layers=False,
    scoring_tokens=2048, generation_rows=8,
)  # fmt: skip
EOS, KEY = 2, jax.random.key(3)


@pytest.fixture(scope="module")
def params():
    return sharpened_params(CONFIG)


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(0)
    shots = rng.integers(3, 40, 80).tolist()
    alike = [[*shots, *rng.integers(3, 40, size)] for size in (1, 9, 30, 4)]
    return alike + [rng.integers(3, 40, size).tolist() for size in (1, 12, 60)]


def never(prompt, tokens):
    return False


@pytest.mark.parametrize("new_tokens", [STEPS, 2 * STEPS + 5])
def test_greedy_answers_are_those_of_generate(params, prompts, new_tokens):
    sampling = Sampling(0.0, 1.0, new_tokens)
    expected = generate(CONFIG, params, prompts, sampling, KEY, EOS)
    found = generate_until(CONFIG, params, prompts, sampling, KEY, EOS, never)
    for one, other in zip(found, expected, strict=True):
        assert (one.prompt_index, one.finished) == (other.prompt_index, other.finished)
        np.testing.assert_array_equal(one.tokens, other.tokens)


def test_answers_on_a_mesh_are_the_same(params, prompts):
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    split = jax.device_put(params, parameter_shardings(LanguageModel(CONFIG), mesh))
    sampling = Sampling(0.0, 1.0, 20)
    expected = generate_until(CONFIG, params, prompts, sampling, KEY, EOS, never)
    found = generate_until(CONFIG, split, prompts, sampling, KEY, EOS, never)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)


def test_an_answer_ends_soon_after_its_text_does(params, prompts, monkeypatch):
    calls = []
    original = until_file.decode_rows
    monkeypatch.setattr(until_file, "decode_rows", lambda *args, **kw: calls.append(1) or original(*args, **kw))
    asked = []

    def has_ended(prompt, tokens):
        asked.append((prompt, len(tokens)))
        return len(tokens) >= 5

    found = generate_until(CONFIG, params, prompts[4:], Sampling(0.0, 1.0, 100), KEY, EOS, has_ended)
    whole = generate(CONFIG, params, prompts[4:], Sampling(0.0, 1.0, 100), KEY, EOS)
    assert all(sample.finished and len(sample.tokens) <= STEPS for sample in found)
    for one, other in zip(found, whole, strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens[: len(one.tokens)])
    assert asked and {prompt for prompt, _ in asked} <= {0, 1, 2}  # not of one that gave the EOS
    # One block for each batch, of seven that the answers may take.
    assert len(calls) <= 3


def test_sampled_answers_depend_on_the_key_and_the_prompt_alone(params, prompts):
    sampling = Sampling(1.0, 0.9, 20)
    one = generate_until(CONFIG, params, prompts, sampling, KEY, EOS, never)
    again = generate_until(CONFIG, params, prompts[:5], sampling, KEY, EOS, never)
    other = generate_until(CONFIG, params, prompts, sampling, jax.random.key(4), EOS, never)
    for left, right in zip(one, again, strict=False):
        np.testing.assert_array_equal(left.tokens, right.tokens)
    assert any(left.tokens.tolist() != right.tokens.tolist() for left, right in zip(one, other, strict=True))
    repeated = generate_until(CONFIG, params, [prompts[4]] * 4, sampling, KEY, EOS, never)
    assert len({tuple(sample.tokens.tolist()) for sample in repeated}) > 1


def test_a_prompt_that_leaves_no_room_is_refused(params):
    with pytest.raises(ValueError, match="leaves room"):
        generate_until(CONFIG, params, [[1] * 190], Sampling(0.0, 1.0, 3), KEY, EOS, never)
    assert generate_until(CONFIG, params, [], Sampling(), KEY, EOS, never) == []


def test_a_prompt_s_id_and_not_its_place_decides_what_is_sampled(params, prompts):
    sampling = Sampling(1.0, 0.9, 20)
    all_of_them = generate_until(CONFIG, params, prompts, sampling, KEY, EOS, never)
    some = generate_until(CONFIG, params, prompts[4:], sampling, KEY, EOS, never, [4, 5, 6])
    for one, other in zip(some, all_of_them[4:], strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)
