"""Continuations have the scores that a forward pass of the whole sequence gives, whatever shares their context."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama2_jax.inference import continuations as continuations_file
from llama2_jax.inference.contexts import group_by_prefix, make_reader, read_contexts
from llama2_jax.inference.continuations import score_continuations
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import LanguageModel, parameter_shardings
from llama2_jax.sharding.mesh import make_mesh
from tests.random_model import sharpened_params

CONFIG = ModelConfig(
    vocab_size=40, dim=32, layers=2, heads=4, kv_heads=2, ffn_hidden=64, max_length=160, scan_layers=False,
    scoring_tokens=1024,
)  # fmt: skip


@pytest.fixture(scope="module")
def params():
    return sharpened_params(CONFIG)


@functools.partial(jax.jit, static_argnums=0)
def forward(config, params, tokens, length):
    positions = jnp.arange(tokens.shape[1])[None]
    segments = (positions < length).astype(jnp.int32)
    return LanguageModel(config).apply({"params": params}, tokens, positions, segments)


def slow_score(params, context, continuation):
    """Log-softmax in float64 of one forward pass without a cache."""
    sequence = [*context, *continuation]
    tokens = np.zeros((1, CONFIG.max_length + 1), np.int32)
    tokens[0, : len(sequence)] = sequence
    logits = np.asarray(forward(CONFIG, params, tokens, len(sequence))[0], np.float64)
    logits = logits[len(context) - 1 : len(sequence) - 1]
    logps = (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )
    taken = logps[np.arange(len(continuation)), continuation]
    return taken.sum(), bool((logits.argmax(-1) == continuation).all())


def draw_pairs(seed=0):
    """Pairs of all sorts: choices of one context, contexts that begin alike, long and short ones, the longest."""
    rng = np.random.default_rng(seed)

    def ids(size):
        return rng.integers(3, 40, size).tolist()

    shots = ids(90)
    pairs = []
    for size in (3, 20, 41, 7, 11):
        context = [*shots, *ids(size)]
        pairs += [(context, ids(length)) for length in (1, 1, 4, 2)]
    for size, length in ((1, 1), (1, 30), (50, 3), (50, 9), (33, 1), (150, 11), (160, 1), (1, 160)):
        pairs.append((ids(size), ids(length)))
    return [context for context, _ in pairs], [continuation for _, continuation in pairs]


def check(scores, params, contexts, continuations):
    for score, context, continuation in zip(scores, contexts, continuations, strict=True):
        expected, greedy = slow_score(params, context, continuation)
        assert score.log_likelihood == pytest.approx(expected, abs=1e-5 * (5 + len(continuation)))
        assert score.is_greedy == greedy


def test_scores_are_those_of_whole_sequences(params):
    contexts, continuations = draw_pairs()
    check(score_continuations(CONFIG, params, contexts, continuations), params, contexts, continuations)


def test_the_greedy_continuation_is_known_as_such(params):
    context, answer = [5, 9, 11], []
    for _ in range(6):
        tokens = np.zeros((1, CONFIG.max_length + 1), np.int32)
        tokens[0, : 3 + len(answer)] = [*context, *answer]
        logits = forward(CONFIG, params, tokens, 3 + len(answer))[0, 2 + len(answer)]
        answer.append(int(np.argmax(logits)))
    other = [*answer[:-1], (answer[-1] + 1) % 40]
    greedy = score_continuations(CONFIG, params, [context] * 3, [answer, other, answer[:1]])
    assert [score.is_greedy for score in greedy] == [True, False, True]


@pytest.mark.parametrize("shape", [{"data": 2, "fsdp": 2, "tensor": 2}, {"data": 8, "fsdp": 1}])
def test_a_mesh_gives_the_same_scores(params, shape):
    mesh = make_mesh(**shape)
    split = jax.device_put(params, parameter_shardings(LanguageModel(CONFIG), mesh))
    contexts, continuations = draw_pairs(1)
    check(score_continuations(CONFIG, split, contexts, continuations), params, contexts, continuations)


def test_a_shared_prefix_and_a_shared_context_are_read_once(params, monkeypatch):
    prefixes, trees = [], []
    for name, calls, place in (("prefill_rows", prefixes, 1), ("tree_states", trees, 3)):
        original = getattr(continuations_file, name)
        monkeypatch.setattr(
            continuations_file, name,
            lambda *args, original=original, calls=calls, place=place, **kw: calls.append(args[place])
            or original(*args, **kw),
        )  # fmt: skip
    shots = np.random.default_rng(2).integers(3, 40, 100).tolist()
    contexts = [[*shots, 5, number] for number in range(3, 11)]
    score_continuations(CONFIG, params, [c for c in contexts for _ in range(4)], [[4], [5], [6, 7], [8]] * 8)
    # 101 tokens are shared; a context has one of its own, and one of its continuations has one to be read.
    assert [tokens.shape[0] for tokens in prefixes] == [1]
    assert sum(int((segment_ids > 0).sum()) for segment_ids in trees) == 8 * 2


def test_continuations_that_fill_more_than_a_row(params):
    rng = np.random.default_rng(4)
    contexts = [rng.integers(3, 40, 70).tolist()] * 9
    continuations = [rng.integers(3, 40, size).tolist() for size in (90, 40, 1, 55, 30, 91, 2, 60, 7)]
    check(score_continuations(CONFIG, params, contexts, continuations), params, contexts, continuations)


def test_contexts_are_grouped_by_what_they_share():
    rng = np.random.default_rng(3)
    one, other = rng.integers(0, 9, 100).tolist(), rng.integers(0, 9, 80).tolist()
    few = rng.integers(0, 9, 70).tolist()
    contexts = [[*one, i] for i in range(5)] + [[*other, i, i] for i in range(4)] + [[*few, 1], [*few, 2], [7]]
    groups = {tuple(sorted(members)): prefix for prefix, members in group_by_prefix(contexts)}
    assert groups == {(0, 1, 2, 3, 4): 100, (5, 6, 7, 8): 80, (9, 10, 11): 0}
    # Equal ones: the last token is left to be read.
    assert group_by_prefix([one] * 4) == [(99, [0, 1, 2, 3])]


def test_contexts_are_read_in_batches_of_generation_rows(params):
    reader = make_reader(dataclasses.replace(CONFIG, generation_rows=4, scoring_tokens=128), params)
    shots = np.random.default_rng(5).integers(3, 40, 70).tolist()
    contexts = [[1] * size for size in (5, 30, 31, 60, 8, 9, 100, 12, 3)] + [[*shots, 7, size] for size in range(6)]
    batches = list(read_contexts(reader, contexts, 16))
    assert sorted(index for batch in batches for index in batch.indices) == list(range(len(contexts)))
    # The longest first, in caches of 128 + 16 slots, then of 32 + 16; those behind the prefix in 128 + 32 + 16.
    assert [len(batch.indices) for batch in batches] == [2, 4, 3, 2, 2, 2]
    assert all(batch.cache.positions.size <= 4 * 128 for batch in batches)
    for batch in batches:
        for row, index in enumerate(batch.indices):
            alone = next(read_contexts(reader, [contexts[index]], 16))
            np.testing.assert_allclose(batch.hidden[row], alone.hidden[0], atol=1e-5)


@pytest.mark.parametrize(
    ("contexts", "continuations", "message"),
    [
        ([[1]], [], "1 contexts and 0 continuations"),
        ([[1], []], [[1], [2]], "pair 1 has 0 tokens of context"),
        ([[1]], [[]], "0 of continuation"),
        ([[1] * 150], [[2] * 12], "max_length is 160"),
    ],
)
def test_what_cannot_be_scored_is_refused(params, contexts, continuations, message):
    with pytest.raises(ValueError, match=message):
        score_continuations(CONFIG, params, contexts, continuations)


def test_nothing_to_score(params):
    assert score_continuations(CONFIG, params, [], []) == []
