"""Streaming gives the same tokens as generation in batches, turn after turn, in three compiled programs."""

import dataclasses
import gc
import weakref

import jax
import numpy as np
import pytest

from llama2_jax.inference import stream as stream_file
from llama2_jax.inference.generate import Sampling, generate
from llama2_jax.inference.stream import LARGE_BLOCK, SMALL_BLOCK, begin, make_streamer, read, stream
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import LanguageModel, parameter_shardings
from llama2_jax.sharding.mesh import make_mesh
from tests.random_model import sharpened_params

CONFIG = ModelConfig(
    vocab_size=40, dim=32, layers=2, heads=4, kv_heads=2, ffn_hidden=64, max_length=400, scan_layers=False,
    generation_rows=1,
)  # fmt: skip
EOS = 2
KEY = jax.random.key(7)
GREEDY = Sampling(0.0, 1.0, 8)


@pytest.fixture(scope="module")
def params():
    return sharpened_params(CONFIG)


@pytest.fixture(scope="module")
def streamer(params):
    return make_streamer(CONFIG, copied(params))


def copied(params):
    """New dicts with the same arrays."""
    return jax.tree.map(lambda array: array, params)


def prompt(size, seed=0):
    return np.random.default_rng(seed).integers(3, CONFIG.vocab_size, size).tolist()


def answer(streamer, context, sampling, eos=EOS, key=KEY):
    """The context after an answer, and the answer."""
    before = len(context.tokens)
    for newer in stream(streamer, context, sampling, key, eos):
        context = newer
    return context, list(context.tokens[before:])


# Every way in which a prompt splits into blocks: less than one, whole ones, large and small ones, with remainders. The
# tests of MORE_SIZES are slow ones.
SIZES = (70, 391)
MORE_SIZES = (1, 31, SMALL_BLOCK, 33, LARGE_BLOCK, LARGE_BLOCK + SMALL_BLOCK)


@pytest.mark.parametrize(
    ("size", "sampling"),
    [
        *((size, GREEDY) for size in SIZES),
        *(pytest.param(size, GREEDY, marks=pytest.mark.slow) for size in MORE_SIZES),
        (70, Sampling(0.8, 1.0, 8)),
        (70, Sampling(0.8, 0.7, 8)),
    ],
    ids=str,
)
def test_the_tokens_are_those_of_generate(params, streamer, size, sampling):
    (expected,) = generate(CONFIG, params, [prompt(size)], sampling, KEY, EOS)
    context, tokens = answer(streamer, read(streamer, begin(streamer), prompt(size)), sampling)
    assert tokens == expected.tokens.tolist()
    assert list(context.tokens) == prompt(size) + tokens


def test_the_same_seed_gives_the_same_text_and_another_one_another(streamer):
    sampling = Sampling(1.0, 0.9, 12)
    once, again, other = (
        answer(streamer, read(streamer, begin(streamer), prompt(9)), sampling, -1, jax.random.key(seed))[1]
        for seed in (1, 1, 2)
    )
    assert once == again != other


def test_a_turn_after_others_is_as_if_all_were_read_again(streamer):
    context, tokens = begin(streamer), []
    for turn, size in enumerate((40, 3, 65)):
        tokens += prompt(size, turn)
        context, new = answer(streamer, read(streamer, context, tokens), GREEDY, -1)
        _, expected = answer(streamer, read(streamer, begin(streamer), tokens), GREEDY, -1)
        assert new == expected
        tokens += new


@pytest.mark.parametrize("change_at", [0, 1, 37, 99])
def test_tokens_after_a_change_are_read_again(streamer, change_at):
    """Another system message, a dropped turn, a prompt that is shorter than what was read before."""
    context = read(streamer, begin(streamer), prompt(100))
    changed = prompt(100)[:change_at] + prompt(20, seed=1)
    _, tokens = answer(streamer, read(streamer, context, changed), GREEDY)
    _, expected = answer(streamer, read(streamer, begin(streamer), changed), GREEDY)
    assert tokens == expected


def test_only_new_tokens_are_read(streamer, monkeypatch):
    starts = []
    original = stream_file._read_block

    def recording(weights, cache, block, start, count, **static):
        starts.append((int(start), int(count), len(block)))
        return original(weights, cache, block, start, count, **static)

    monkeypatch.setattr(stream_file, "_read_block", recording)
    context = read(streamer, begin(streamer), prompt(300))
    context = read(streamer, context, [*prompt(300), 5, 6, 7])
    read(streamer, context, prompt(300))  # the last token is read again, to draw after it
    assert starts == [(0, 256, 256), (256, 32, 32), (288, 12, 32), (300, 3, 32), (299, 1, 32)]


@pytest.mark.slow
def test_three_programs_are_compiled_whatever_the_lengths(params):
    config = dataclasses.replace(CONFIG, max_length=390)  # shapes that no other test has compiled
    streamer = make_streamer(config, copied(params))
    programs = (stream_file._read_block, stream_file._next_token)
    before = [program._cache_size() for program in programs]
    for size in (1, 5, 33, 64, 256, 300, 380):
        for sampling in (Sampling(0.7, 0.9, 3), Sampling(0.2, 0.5, 5)):
            answer(streamer, read(streamer, begin(streamer), prompt(size)), sampling)
    assert [program._cache_size() - count for program, count in zip(programs, before, strict=True)] == [2, 1]


def test_an_answer_ends_when_the_context_is_full(streamer):
    context, tokens = answer(streamer, read(streamer, begin(streamer), prompt(395)), Sampling(0.0, 1.0, 50), eos=-1)
    assert len(tokens) == 5 and len(context.tokens) == CONFIG.max_length
    with pytest.raises(ValueError, match="a prompt of 400 tokens; the model's context has room for 1 to 399"):
        read(streamer, context, context.tokens)


def test_a_dialogue_continues_after_an_interrupted_answer(streamer):
    context = read(streamer, begin(streamer), prompt(10))
    for count, newer in enumerate(stream(streamer, context, Sampling(0.0, 1.0, 9), KEY, -1), 1):
        context = newer
        if count == 3:
            break
    tokens = [*context.tokens, 7, 8]
    _, continued = answer(streamer, read(streamer, context, tokens), GREEDY)
    _, expected = answer(streamer, read(streamer, begin(streamer), tokens), GREEDY)
    assert len(tokens) == 15 and continued == expected


def test_the_parameters_are_consumed_and_are_in_memory_only_once(params):
    consumed = jax.tree.map(np.copy, params)
    consumed = jax.tree.map(jax.device_put, consumed)
    arrays = [weakref.ref(array) for array in jax.tree.leaves(consumed["trunk"]["layers"])]
    make_streamer(CONFIG, consumed)
    gc.collect()
    assert consumed == {} and not any(array() is not None for array in arrays)


@pytest.mark.slow
def test_a_mesh_changes_no_token(params, streamer):
    split = jax.device_put(params, parameter_shardings(LanguageModel(CONFIG), make_mesh(1, 4, 2)))
    over_mesh = make_streamer(CONFIG, split)
    _, tokens = answer(over_mesh, read(over_mesh, begin(over_mesh), prompt(50)), Sampling(0.8, 0.9, 8))
    _, expected = answer(streamer, read(streamer, begin(streamer), prompt(50)), Sampling(0.8, 0.9, 8))
    assert tokens == expected


def test_an_answer_needs_a_prompt(streamer):
    with pytest.raises(ValueError, match="a prompt of 0 tokens"):
        read(streamer, begin(streamer), [])
    with pytest.raises(ValueError, match="nothing was read yet"):
        next(stream(streamer, begin(streamer), GREEDY, KEY, EOS))
