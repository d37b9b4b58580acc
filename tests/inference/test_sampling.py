import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.inference.sampling import draw, inverse_cumulative, nucleus, uniforms

ROWS = 20_000


def logits(vocab, seed=0):
    return np.asarray(2 * np.random.default_rng(seed).standard_normal(vocab), np.float32)


def softmax(x):
    x = np.exp(np.asarray(x, np.float64) - np.max(x))
    return x / x.sum()


def slow_nucleus(p, top_p):
    """PAPER.md, section C, as in Meta's code: sort, drop tokens with cumsum - p > top_p."""
    order = np.argsort(-p, kind="stable")
    falling = p[order]
    kept = np.zeros(len(p), bool)
    kept[order] = ~(np.cumsum(falling) - falling > top_p)
    return np.where(kept, p, 0)


def chi_square(counts, probabilities):
    """Pearson's statistic over the tokens expected at least five times, the others merged into one."""
    expected = counts.sum() * probabilities
    common = expected >= 5
    counts = np.append(counts[common], counts[~common].sum())
    expected = np.append(expected[common], expected[~common].sum())
    counts, expected = counts[expected > 0], expected[expected > 0]
    return ((counts - expected) ** 2 / expected).sum(), len(counts) - 1


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, None), (0.6, None), (1.3, None), (1.0, 0.9), (0.7, 0.5)])
@pytest.mark.parametrize("vocab", [40, pytest.param(700, marks=pytest.mark.slow)])
def test_sampled_frequencies_are_the_probabilities(temperature, top_p, vocab):
    row = logits(vocab)
    uniform = uniforms(jax.random.key(1), jnp.arange(ROWS), 1)[:, 0]
    tokens, _ = jax.jit(draw)(
        jnp.broadcast_to(row, (ROWS, vocab)), jnp.full(ROWS, temperature), uniform, None if top_p is None else top_p
    )
    probabilities = softmax(row / temperature)
    if top_p is not None:
        probabilities = slow_nucleus(probabilities, top_p)
        probabilities /= probabilities.sum()
    counts = np.bincount(np.asarray(tokens), minlength=vocab)
    assert counts[probabilities == 0].sum() == 0
    statistic, freedom = chi_square(counts, probabilities)
    # Five standard deviations of the chi-square distribution; the seed is fixed.
    assert statistic < freedom + 5 * np.sqrt(2 * freedom)


def test_log_probability_is_of_the_whole_distribution_at_the_temperature():
    rows = np.stack([logits(300, seed) for seed in range(50)])
    temperature = np.linspace(0.3, 2.0, 50, dtype=np.float32)
    uniform = np.linspace(0, 0.999, 50, dtype=np.float32)
    for top_p in (None, 0.8):
        tokens, logps = jax.jit(draw)(rows, temperature, uniform, top_p)
        expected = [np.log(softmax(rows[i] / temperature[i])[tokens[i]]) for i in range(50)]
        np.testing.assert_allclose(logps, expected, atol=1e-5)  # float32 against float64


def test_temperature_zero_is_argmax_and_certain():
    rows = np.stack([logits(300, seed) for seed in range(20)])
    rows[0, [7, 11]] = 50.0
    tokens, logps = jax.jit(draw)(rows, jnp.zeros(20), jnp.full(20, 0.99))
    np.testing.assert_array_equal(tokens, rows.argmax(axis=1))
    assert tokens[0] == 7, "the first of equals"
    assert (np.asarray(logps) == 0).all()


def test_each_row_may_have_its_own_temperature():
    row = jnp.broadcast_to(logits(100), (3, 100))
    uniform = jnp.full(3, 0.9)
    jitted = jax.jit(draw)
    together, _ = jitted(row, jnp.array([0.0, 0.5, 1.5]), uniform)
    for index, temperature in enumerate((0.0, 0.5, 1.5)):
        separate, _ = jitted(row[:1], jnp.array([temperature]), uniform[:1])
        assert together[index] == separate[0]


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
def test_nucleus_is_metas_rule(top_p):
    weights = np.stack([softmax(logits(500, seed)) for seed in range(30)]).astype(np.float32)
    kept = jax.jit(nucleus)(7 * weights, top_p)  # need not be normalised
    for row, got in zip(weights, kept, strict=True):
        np.testing.assert_array_equal(np.asarray(got) > 0, slow_nucleus(row.astype(np.float64), top_p) > 0)


def test_nucleus_by_hand():
    weights = jnp.array([[0.125, 0.5, 0.25, 0.125, 0.0]])
    # The tokens before the third one sum to 0.75, which is not above 0.75, so it stays, and the equal one with it.
    cut = jax.jit(nucleus)
    assert cut(weights, 0.75).tolist() == [[0.125, 0.5, 0.25, 0.125, 0.0]]
    assert cut(weights, 0.7).tolist() == [[0.0, 0.5, 0.25, 0.0, 0.0]]
    assert cut(weights, 0.4).tolist() == [[0.0, 0.5, 0.0, 0.0, 0.0]]
    assert cut(weights, 0.001).tolist() == [[0.0, 0.5, 0.0, 0.0, 0.0]], "the likeliest token always stays"


def test_inverse_cumulative_by_hand():
    weights = jnp.zeros((6, 300)).at[:, [3, 130, 299]].set(jnp.array([1.0, 2.0, 1.0]))
    uniform = jnp.array([0.0, 0.249, 0.251, 0.749, 0.751, 1.0])
    assert jax.jit(inverse_cumulative)(weights, uniform).tolist() == [3, 3, 130, 130, 299, 299]


def test_tokens_of_probability_zero_are_never_drawn():
    weights = jnp.where(jax.random.uniform(jax.random.key(0), (1, 1000)) < 0.5, 0.0, 1.0 / 3)
    uniform = uniforms(jax.random.key(1), jnp.arange(5000), 1)[:, 0]
    tokens = jax.jit(inverse_cumulative)(jnp.broadcast_to(weights, (5000, 1000)), uniform)
    assert (np.asarray(weights)[0, np.asarray(tokens)] > 0).all()


def test_randomness_is_a_function_of_key_row_and_step():
    numbers = uniforms(jax.random.key(0), jnp.arange(6), 5)
    np.testing.assert_array_equal(uniforms(jax.random.key(0), jnp.array([4, 2]), 3), numbers[jnp.array([4, 2]), :3])
    assert len(np.unique(numbers)) == 30
    assert not np.array_equal(uniforms(jax.random.key(1), jnp.arange(6), 5), numbers)
