"""Which answers share a batch, and that each row has its prompt on its own device."""

import dataclasses
import types

import numpy as np
import pytest

from llama2_jax.inference.batches import (
    batches,
    generation_batch_size,
    make_prompt_batch,
    prompt_batch_size,
)
from llama2_jax.models.config import PRESETS

SIZES = [5, 2, 7, 1, 3, 3, 6, 4, 2, 8, 1]
PROMPTS = [list(range(10 * number, 10 * number + size)) for number, size in enumerate(SIZES)]


def mesh_of_groups(groups):
    """A mesh as far as batches look at it."""
    return types.SimpleNamespace(shape={"data": 1, "fsdp": groups, "tensor": 2}) if groups > 1 else None


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
@pytest.mark.parametrize(
    ("samples", "batch_size"), [(1, 8), (2, 8), (3, 8), (4, 16), (8, 8), (20, 8), (3, 16), (5, 24)]
)
def test_every_answer_is_made_once_and_has_its_prompt_on_its_own_device(samples, batch_size, groups):
    mesh = mesh_of_groups(groups)
    prompt_rows = prompt_batch_size(samples, batch_size, mesh)
    assert prompt_rows % groups == 0
    made = []
    for answers in batches(PROMPTS, samples, batch_size):
        assert len(answers) <= batch_size
        row_prompts = [answer // samples for answer in answers]
        batch = make_prompt_batch(PROMPTS, row_prompts, batch_size, prompt_rows, 8, mesh)
        assert batch.tokens.shape == batch.positions.shape == (prompt_rows, 8)
        assert batch.prompt_index.shape == (batch_size,) and (batch.prompt_index < prompt_rows // groups).all()
        assert (batch.positions[:, 0] == 0).all()
        tokens, positions = (array.reshape(groups, -1, 8) for array in (batch.tokens, batch.positions))
        for row, prompt in enumerate(row_prompts):
            place = row // (batch_size // groups), batch.prompt_index[row]
            size = len(PROMPTS[prompt])
            assert tokens[place][:size].tolist() == PROMPTS[prompt]
            assert positions[place].tolist() == [*range(size), *[-1] * (8 - size)]
        if prompt_rows == batch_size:
            own = np.arange(len(answers)) % (batch_size // groups)
            assert batch.prompt_index[: len(answers)].tolist() == own.tolist(), "each row has its own prompt"
        made += answers
    assert sorted(made) == list(range(len(PROMPTS) * samples))


def test_prompts_take_no_more_rows_than_they_need():
    assert prompt_batch_size(4, 128, None) == 32
    assert prompt_batch_size(4, 128, mesh_of_groups(32)) == 32, "a prompt for each device"
    assert prompt_batch_size(4, 128, mesh_of_groups(64)) == 64, "samples on two devices: each prefills the prompt"
    assert prompt_batch_size(1, 128, mesh_of_groups(64)) == 128
    assert prompt_batch_size(200, 128, None) == 1


def test_prompts_of_similar_length_share_a_batch():
    sizes = [[SIZES[answer] for answer in answers] for answers in batches(PROMPTS, 1, 4)]
    assert sizes == [[1, 1, 2, 2], [3, 3, 4, 5], [6, 7, 8]]


def test_generation_rows_are_rounded_up_to_what_the_mesh_can_split():
    config = dataclasses.replace(PRESETS["tiny"], generation_rows=100)
    sizes = [generation_batch_size(config, mesh_of_groups(groups)) for groups in (1, 8, 100, 256)]
    assert sizes == [100, 104, 100, 256]


def test_few_answers_are_not_decoded_with_all_rows():
    config = dataclasses.replace(PRESETS["tiny"], generation_rows=100)
    assert [generation_batch_size(config, None, answers) for answers in (1, 32, 33, 64, 65, 1000)] == [
        32, 32, 64, 64, 100, 100,
    ]  # fmt: skip
    assert generation_batch_size(config, mesh_of_groups(24), 33) == 72
