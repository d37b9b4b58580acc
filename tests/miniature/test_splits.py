"""Questions are split by what they ask for: in every wording, in every world, with a share of every kind and level."""

import collections
import itertools

import pytest

from llama2_jax.miniature.prompts import EVALUATED_KINDS, borderline_prompt, harmless_prompt, prompts, unsafe_prompt
from llama2_jax.miniature.requests.howto import ATTACKS, FRAMES
from llama2_jax.miniature.requests.identity import QUESTIONS
from llama2_jax.miniature.requests.kinds import KINDS, LEVELS, ask
from llama2_jax.miniature.splits import EVALUATION, SPLITS, TRAINING, VALIDATION, ask_in, kinds_in, split_of
from llama2_jax.miniature.streams import stream
from llama2_jax.miniature.world import build_world, misspell

# The splits go round with the seed: six in a row are all that there are.
SEEDS = range(6)


def splits_of(seed, *questions):
    return {split_of(seed, question) for question in questions}


@pytest.mark.parametrize("seed", SEEDS)
def test_every_split_has_questions_of_every_kind_level_and_attack(seed):
    rng = stream(seed, "test splits")
    for split in SPLITS:
        for kind, level in itertools.product(EVALUATED_KINDS, LEVELS):
            prompt = harmless_prompt(seed, rng, kind, level, split=split)
            assert splits_of(seed, prompt["messages"][0]["content"]) == {split}
            assert (prompt["category"], prompt["level"]) == (kind, level)
        for attack in ATTACKS:
            prompt = unsafe_prompt(seed, rng, attack, split=split)
            assert splits_of(seed, prompt["messages"][0]["content"]) == {split}
            assert prompt["safety"] and prompt["attack"] == attack
        prompt = borderline_prompt(seed, rng, split=split)
        assert splits_of(seed, prompt["messages"][0]["content"]) == {split}
        assert prompt["category"] == "borderline" and not prompt["safety"]


def test_other_words_for_the_same_are_in_the_same_split():
    for seed in SEEDS:
        world = build_world(seed)
        for land in world.lands:
            one = (f"What is the ruler of {land}?", f"Name the ruler of {land}.", f"Tell me the ruler of {land}.")
            assert len(splits_of(seed, *one)) == 1
            assert len(splits_of(seed, f"Tell me three facts about {land}.", f"List three facts about {land}.")) == 1
        assert (
            len(splits_of(seed, "What is three plus four?", "Compute three plus four.", "Tell me three plus four."))
            == 1
        )
        numbers = ("Which is the largest number, twelve or seven?", "Which is the largest number, seven or twelve?")
        assert len(splits_of(seed, *numbers)) == 1
        assert len(splits_of(seed, "List three toys.", "Name three toys.", "Give me three toys.")) == 1
        things = ("Write a story with a fox and a kite.", "Tell a story with a kite and a fox.")
        assert len(splits_of(seed, *things)) == 1


def test_a_request_that_contains_another_is_in_its_split():
    """An attack's frame may hold the plain question word by word."""
    held, seed = 0, 0
    for phrase in build_world(seed).tasks:
        texts = [
            form.format(misspell(phrase) if attack == "misspelling" else phrase)
            for attack, forms in FRAMES.items()
            for form in forms
        ]
        for one, other in itertools.permutations(texts, 2):
            if one in other:
                held += 1
                assert len(splits_of(seed, one, other)) == 1, (one, other)
        assert TRAINING in splits_of(seed, *texts), "training asks for every task in some frame"
    assert held > 100


def test_one_question_in_six_is_kept_for_each_and_by_the_seed():
    counts = {seed: collections.Counter() for seed in SEEDS}
    for kind, level in itertools.product(EVALUATED_KINDS, LEVELS):
        rng = stream(0, "test shares", kind, level)
        # Names of lands differ between worlds; all else may be asked in any.
        for seed in SEEDS if kind != "fact" else [0]:
            questions = {ask(seed, rng, kind, level, False) for _ in range(60)}
            counts[seed].update(split_of(seed, question) for question in questions)
    for count in counts.values():
        shares = {split: count[split] / count.total() for split in SPLITS}
        assert shares == pytest.approx({TRAINING: 2 / 3, VALIDATION: 1 / 6, EVALUATION: 1 / 6}, abs=0.05)
    assert {split_of(seed, "List three toys.") for seed in SEEDS} == set(SPLITS)


def test_the_questions_about_the_assistant_belong_to_training():
    assert splits_of(0, *QUESTIONS.values()) == {TRAINING}
    assert "identity" in kinds_in(TRAINING, KINDS) and "identity" not in kinds_in(EVALUATION, KINDS)
    with pytest.raises(ValueError, match=r"'What .*' belongs to the split 'evaluation'"):
        ask_in(EVALUATION, 0, lambda: QUESTIONS["figure"])


def test_an_unknown_split_names_those_that_there_are():
    with pytest.raises(ValueError, match="'test'; questions are split into training, validation, evaluation"):
        prompts(seed=0, count=1, split="test")
