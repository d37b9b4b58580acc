"""Answers turn after turn are those to whole prompts, though nothing is read twice."""

import jax
import numpy as np
import pytest

from llama2_jax.inference import turns
from llama2_jax.inference.generate import Sampling, generate
from llama2_jax.inference.turns import answer_turn, begin
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import LanguageModel, parameter_shardings
from llama2_jax.sharding.mesh import make_mesh
from tests.random_model import sharpened_params

CONFIG = ModelConfig(
    vocab_size=40, dim=32, layers=2, heads=4, kv_heads=2, ffn_hidden=64, max_length=400, scan_layers=False,
    generation_rows=4,
)  # fmt: skip
EOS = 2
KEY = jax.random.key(7)
SAMPLED = Sampling(0.8, 0.95, 24)
# What the user says in each turn, by row: some rows say nothing in later turns.
SAID = [{0: 40, 1: 5, 2: 170}, {0: 7, 1: 90, 2: 1}, {0: 3, 2: 33}, {2: 12}]


@pytest.fixture(scope="module")
def params():
    return sharpened_params(CONFIG)


def text(size, *seed):
    return np.random.default_rng(seed).integers(3, CONFIG.vocab_size, size).tolist()


def talk(params, said, rows=4, sampling=SAMPLED):
    """The prompts and the answers of each turn, by row; each prompt goes on from the answer before."""
    dialogues, before, found = begin(CONFIG, params, rows), dict.fromkeys(range(rows), ()), []
    for turn, sizes in enumerate(said):
        prompts = {row: [*before[row], *text(size, turn, row)] for row, size in sizes.items()}
        ids = {row: 10 + row for row in prompts}
        dialogues, samples = answer_turn(dialogues, prompts, sampling, jax.random.fold_in(KEY, turn), ids, EOS)
        found.append((prompts, samples))
        before |= {row: (*prompts[row], *sample.tokens.tolist()) for row, sample in samples.items()}
        assert all(dialogues.tokens[row] == before[row] for row in prompts)
    return found


def assert_as_generated(params, found, sampling=SAMPLED):
    for turn, (prompts, samples) in enumerate(found):
        wanted = generate(CONFIG, params, [*prompts.values()], sampling, jax.random.fold_in(KEY, turn), EOS,
                          prompt_ids=[10 + row for row in prompts])  # fmt: skip
        for row, sample in zip(prompts, wanted, strict=True):
            assert samples[row].tokens.tolist() == sample.tokens.tolist(), (turn, row)
            assert samples[row].finished == sample.finished
            np.testing.assert_allclose(samples[row].sampling_logps, sample.sampling_logps, atol=1e-4)


def test_turns_go_on_from_what_was_read(params):
    found = talk(params, SAID)
    assert_as_generated(params, found)
    assert len({len(sample.tokens) for _, samples in found for sample in samples.values()}) > 1


def test_a_prompt_that_takes_back_what_was_said_is_read_from_there(params):
    dialogues = begin(CONFIG, params, 4)
    prompts = {0: text(50, 1), 1: text(60, 2)}
    dialogues, first = answer_turn(dialogues, prompts, SAMPLED, KEY, {0: 0, 1: 1}, EOS)
    changed = {0: [*prompts[0][:20], *text(9, 3)], 1: [*prompts[1], *first[1].tokens.tolist()[:2], *text(4, 4)]}
    _, found = answer_turn(dialogues, changed, SAMPLED, KEY, {0: 0, 1: 1}, EOS)
    wanted = generate(CONFIG, params, [*changed.values()], SAMPLED, KEY, EOS)
    assert [found[row].tokens.tolist() for row in (0, 1)] == [sample.tokens.tolist() for sample in wanted]


def test_the_cache_has_half_of_the_slots_until_more_are_needed(params):
    dialogues, before, talked, slots = begin(CONFIG, params, 2), {0: (), 1: ()}, [], []
    for turn in range(5):
        prompts = {row: [*before[row], *text(40, turn, row)] for row in before}
        key = jax.random.fold_in(KEY, turn)
        dialogues, found = answer_turn(dialogues, prompts, SAMPLED, key, {0: 10, 1: 11}, EOS)
        slots.append(dialogues.cache.positions.shape[1])
        assert dialogues.cache.keys[0].shape[3] == dialogues.cache.values[1].shape[2] == slots[-1]
        talked.append((prompts, found))
        before = {row: (*prompts[row], *found[row].tokens.tolist()) for row in before}
    assert_as_generated(params, talked)
    assert slots[0] == 200 + 64 and slots[-1] == 400 + 64 and len(set(slots)) == 2


@pytest.mark.slow
def test_when_the_slots_run_out_tokens_move_and_the_context_can_be_filled(params, monkeypatch):
    """Short turns waste slots, so the cache is tidied again and again; rows of unlike length make it start anew."""
    moved = []
    to_the_front = turns._to_the_front
    monkeypatch.setattr(
        turns,
        "_to_the_front",
        lambda cache, kept, **rest: moved.append(kept.tolist()) or to_the_front(cache, kept, **rest),
    )
    found = talk(params, [{0: 3, 1: 9}] * 11 + [{0: 2, 2: 300}])
    assert_as_generated(params, found)
    assert len(moved) > 2 and any(any(kept) for kept in moved) and moved[-1] == [0, 0, 0, 0]
    longest = CONFIG.max_length - SAMPLED.max_new_tokens
    assert_as_generated(params, talk(params, [{0: longest}]))


def test_a_turn_computes_its_own_tokens_alone(params, monkeypatch):
    sizes = []
    read_block = turns.read_block
    monkeypatch.setattr(
        turns, "read_block",
        lambda weights, tokens, *rest, **options: sizes.append(tokens.shape[1]) or read_block(
            weights, tokens, *rest, **options
        ),
    )  # fmt: skip
    talk(params, [{0: 150, 1: 20}, {0: 10, 1: 20}])
    assert sizes == [64, 64, 32, 32]


def test_a_prompt_without_room_for_an_answer_is_refused(params):
    with pytest.raises(ValueError, match="prompt 0 has 390 tokens"):
        answer_turn(begin(CONFIG, params, 2), {1: text(390, 0)}, SAMPLED, KEY, {1: 0}, EOS)


@pytest.mark.slow
def test_rows_are_split_over_a_mesh(params):
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    placed = jax.device_put(params, parameter_shardings(LanguageModel(CONFIG), mesh))
    (alone, split) = (talk(which, SAID[:2]) for which in (params, placed))
    dialogues = begin(CONFIG, placed, 4)
    grown = turns._grown(begin(CONFIG, placed, 4).cache, 400 + 64)
    for one, other in zip(jax.tree.leaves(dialogues.cache), jax.tree.leaves(grown), strict=True):
        assert one.sharding.is_equivalent_to(other.sharding, one.ndim) and one.size <= other.size
    for (_, one), (_, other) in zip(alone, split, strict=True):
        assert [one[row].tokens.tolist() for row in one] == [other[row].tokens.tolist() for row in other]
