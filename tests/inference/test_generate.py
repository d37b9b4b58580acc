import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.inference import generate as generate_file
from llama2_jax.inference.consolidation import generation_weights
from llama2_jax.inference.generate import Sampling, bucket, decode_rows, generate, prefill_rows
from llama2_jax.inference.sampling import draw, uniforms
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import LanguageModel, parameter_shardings
from llama2_jax.sharding.mesh import make_mesh
from tests.random_model import sharpened_params

CONFIG = ModelConfig(
    vocab_size=40, dim=32, layers=2, heads=4, kv_heads=2, ffn_hidden=64, max_length=48, scan_layers=False,
    generation_rows=8,
)  # fmt: skip
EOS = 2
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def params():
    return sharpened_params(CONFIG)


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(0)
    return [rng.integers(3, CONFIG.vocab_size, size).tolist() for size in (5, 33, 1, 12, 30, 7, 20)]


@functools.partial(jax.jit, static_argnums=0)
def forward(config, params, tokens, length):
    positions = jnp.arange(config.max_length)[None]
    logits = LanguageModel(config).apply({"params": params}, tokens, positions, (positions < length).astype(jnp.int32))
    return logits[0, length - 1]


def logits_after(params, sequence):
    """Logits of the full forward pass, without a cache."""
    tokens = np.zeros((1, CONFIG.max_length), np.int32)
    tokens[0, : len(sequence)] = sequence
    return forward(CONFIG, params, tokens, len(sequence))


def slow_answer(params, prompt, row, sampling, steps):
    """Samples token by token from full forward passes, with the row's own random numbers."""
    sequence, logps = list(prompt), []
    numbers = uniforms(KEY, jnp.array([row]), steps)[0]
    top_p = None if sampling.top_p == 1.0 else sampling.top_p
    for step in range(steps):
        logits = logits_after(params, sequence)[None]
        token, logp = jitted_draw(logits, jnp.array([sampling.temperature]), numbers[step : step + 1], top_p)
        sequence.append(int(token[0]))
        logps.append(float(logp[0]))
        if sequence[-1] == EOS:
            break
    return sequence[len(prompt) :], logps


jitted_draw = jax.jit(draw)


def same(left, right, tolerance=2e-5):
    """Asserts equal answers. Sums are in another order: each side was seen up to 1e-5 from float64, so 2e-5 apart."""
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert (a.prompt_index, a.finished) == (b.prompt_index, b.finished)
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_allclose(a.sampling_logps, b.sampling_logps, atol=tolerance)


@pytest.mark.parametrize(
    "sampling",
    [Sampling(1.0, 1.0, 9), pytest.param(Sampling(0.8, 0.7, 9), marks=pytest.mark.slow)],
    ids=["skip_top_p", "nucleus"],
)
def test_answers_are_those_of_full_forward_passes(params, prompts, sampling):
    samples = generate(
        CONFIG, params, prompts, sampling, KEY, EOS, samples_per_prompt=2, prompt_ids=range(50, 50 + len(prompts))
    )
    assert [sample.prompt_index for sample in samples] == [index for index in range(len(prompts)) for _ in range(2)]
    for row, sample in enumerate(samples):
        tokens, logps = slow_answer(params, prompts[sample.prompt_index], 100 + row, sampling, 9)
        assert sample.tokens.tolist() == tokens
        np.testing.assert_allclose(sample.sampling_logps, logps, atol=2e-5)  # cached and full sums differ in order
        assert sample.finished == (tokens[-1] == EOS)
        assert sample.tokens.dtype == np.int32 and sample.sampling_logps.dtype == np.float32
    assert len({tuple(sample.tokens) for sample in samples[:2]}) == 2, "samples of one prompt differ"


def test_temperature_zero_is_the_argmax_of_full_forward_passes(params, prompts):
    for prompt, sample in zip(prompts, generate(CONFIG, params, prompts, Sampling(0.0, 1.0, 6), KEY, -1), strict=True):
        sequence = list(prompt)
        for token in sample.tokens:
            assert token == np.argmax(logits_after(params, sequence))
            sequence.append(int(token))
        assert len(sample.tokens) == 6 and not sample.finished
        assert (sample.sampling_logps == 0).all()


def test_answers_stop_at_eos_and_include_it(params, prompts):
    greedy = generate(CONFIG, params, prompts, Sampling(0.0, 1.0, 10), KEY, -1)
    eos = int(greedy[0].tokens[4])
    for open_ended, sample in zip(
        greedy, generate(CONFIG, params, prompts, Sampling(0.0, 1.0, 10), KEY, eos), strict=True
    ):
        tokens = open_ended.tokens.tolist()
        stop = tokens.index(eos) + 1 if eos in tokens else len(tokens)
        assert sample.tokens.tolist() == tokens[:stop]
        assert sample.finished == (eos in tokens)
        assert len(sample.sampling_logps) == stop


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 3, 64])
def test_the_batch_size_changes_no_answer(params, prompts, rows):
    prompts, other_config = prompts[:3], dataclasses.replace(CONFIG, generation_rows=rows)
    same(
        generate(other_config, params, prompts, Sampling(1.0, 1.0, 9), KEY, EOS, samples_per_prompt=4),
        generate(CONFIG, params, prompts, Sampling(1.0, 1.0, 9), KEY, EOS, samples_per_prompt=4),
    )


def test_prompts_may_be_split_over_calls(params, prompts):
    sampling = Sampling(1.0, 1.0, 9)
    together = generate(CONFIG, params, prompts, sampling, KEY, EOS, samples_per_prompt=2)
    first = generate(CONFIG, params, prompts[:3], sampling, KEY, EOS, samples_per_prompt=2)
    second = generate(
        CONFIG, params, prompts[3:], sampling, KEY, EOS, samples_per_prompt=2, prompt_ids=range(3, len(prompts))
    )
    same([*first, *(dataclasses.replace(s, prompt_index=s.prompt_index + 3) for s in second)], together)


def test_temperatures_by_prompt(params, prompts):
    mixed = generate(CONFIG, params, prompts[:3], Sampling((0.0, 1.0, 0.5), max_new_tokens=9), KEY, EOS)
    for index, temperature in enumerate((0.0, 1.0, 0.5)):
        plain = generate(CONFIG, params, prompts[:3], Sampling(temperature, 1.0, 9), KEY, EOS)
        same(mixed[index : index + 1], plain[index : index + 1])


@pytest.mark.slow
def test_samples_share_one_prefill(params, prompts, monkeypatch):
    shapes = []

    def recording(weights, tokens, positions, prompt_index, **static):
        shapes.append((tokens.shape[0], len(prompt_index)))
        return prefill_rows(weights, tokens, positions, prompt_index, **static)

    monkeypatch.setattr(generate_file, "prefill_rows", recording)
    config = dataclasses.replace(CONFIG, generation_rows=16)
    generate(config, params, prompts, Sampling(1.0, 1.0, 9), KEY, EOS, samples_per_prompt=4)
    assert shapes == [(4, 16), (4, 16)], "7 prompts of 4 samples: two batches of 4 prompts and 16 rows"


def test_the_loop_ends_with_the_last_row(params, prompts):
    """Every answer stops at its first token: one step, whatever max_new_tokens is, also with rows of padding."""
    greedy = generate(CONFIG, params, prompts[:1], Sampling(0.0, 1.0, 9), KEY, -1)
    tokens, positions = np.asarray([prompts[0]], np.int32), np.arange(5, dtype=np.int32)[None]
    weights = generation_weights(CONFIG, params)
    hidden, cache = prefill_rows(weights, tokens, positions, np.zeros(8, np.int32), config=CONFIG, slots=14, mesh=None)
    rows = generate_file.DecodedRows(
        positions=np.full(8, 5, np.int32),
        temperature=np.zeros(8, np.float32),
        answer_ids=np.arange(8, dtype=np.int32),
        used=np.arange(8) < 3,
        eos_id=greedy[0].tokens[0],
        top_p=None,
    )
    *_, sizes, _, _, cache = decode_rows(weights, hidden, cache, rows, KEY, config=CONFIG, steps=9, mesh=None)
    assert sizes.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert cache.index == 5 + 1


@pytest.mark.slow
@pytest.mark.parametrize("samples", [2, 3])
def test_a_mesh_changes_no_answer(params, prompts, samples):
    """With 2 samples no two devices share a prompt; with 3 some prompts are on two devices, and rows are left over."""
    sampling = Sampling(1.0, 1.0, 9)
    split = jax.device_put(params, parameter_shardings(LanguageModel(CONFIG), make_mesh(1, 4, 2)))
    # Against float64, these weights give log-probabilities within 1e-5 on one device and 2e-5 on the mesh (half an ulp
    # of noise on every weight alone moves the worst prompt's logits by 1.1e-5): their difference is at most the sum.
    same(
        generate(CONFIG, split, prompts, sampling, KEY, EOS, samples_per_prompt=samples),
        generate(CONFIG, params, prompts, sampling, KEY, EOS, samples_per_prompt=samples),
        tolerance=3e-5,
    )


@pytest.mark.slow
def test_any_number_of_devices_can_generate(params, prompts):
    """Rows are rounded up to what the mesh can split: here 4 to 6."""
    config = dataclasses.replace(CONFIG, generation_rows=4)
    mesh = make_mesh(3, 1, 1, devices=jax.devices()[:3])
    split = jax.device_put(params, parameter_shardings(LanguageModel(config), mesh))
    sampling = Sampling(1.0, 1.0, 9)
    same(
        generate(config, split, prompts, sampling, KEY, EOS),
        generate(config, params, prompts, sampling, KEY, EOS),
        tolerance=3e-5,
    )


def test_few_lengths_are_compiled():
    assert [bucket(length) for length in (1, 32, 33, 64, 65, 1000)] == [32, 32, 64, 64, 128, 1024]


def test_without_prompts_there_are_no_answers(params):
    assert generate(CONFIG, params, [], Sampling(), KEY, EOS) == []


@pytest.mark.parametrize(
    ("prompts", "message"),
    [([[5], list(range(3, 43))], "prompt 1 has 40 tokens; with max_new_tokens=9"), ([[]], "prompt 0 has 0 tokens")],
)
def test_prompts_that_do_not_fit_are_named(params, prompts, message):
    with pytest.raises(ValueError, match=message):
        generate(CONFIG, params, prompts, Sampling(1.0, 1.0, 9), KEY, EOS)


def test_invalid_settings_raise(params):
    for settings in ({"temperature": -0.1}, {"temperature": float("nan")}, {"top_p": 0.0}, {"max_new_tokens": 0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            Sampling(**settings)
    with pytest.raises(ValueError, match="2 prompt_ids for 1 prompts"):
        generate(CONFIG, params, [[5]], Sampling(max_new_tokens=9), KEY, EOS, prompt_ids=[0, 1])
    with pytest.raises(ValueError, match="2 temperatures for 1 prompts"):
        generate(CONFIG, params, [[5]], Sampling((1.0, 1.0), max_new_tokens=9), KEY, EOS)
