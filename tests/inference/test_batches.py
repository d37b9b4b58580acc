"""Which rows share a batch, and that each finds its prompt where it lies."""

import dataclasses
import types

import numpy as np
import pytest

from llama2_jax.inference.batches import (
    batches,
    generation_batch_size,
    lay_out_prompts,
    rows_of_prompts,
)
from llama2_jax.models.config import PRESETS

SIZES = [5, 2, 7, 1, 3, 3, 6, 4, 2, 8, 1]
PROMPTS = [list(range(10 * number, 10 * number + size)) for number, size in enumerate(SIZES)]


def mesh_of_ways(ways):
    """As much of a mesh as is looked at."""
    return types.SimpleNamespace(shape={"data": 1, "fsdp": ways, "tensor": 2}) if ways > 1 else None


@pytest.mark.parametrize("ways", [1, 2, 4, 8])
@pytest.mark.parametrize(
    ("samples", "batch_size"), [(1, 8), (2, 8), (3, 8), (4, 16), (8, 8), (20, 8), (3, 16), (5, 24)]
)
def test_every_row_is_made_once_and_finds_its_prompt_on_its_own_device(samples, batch_size, ways):
    mesh = mesh_of_ways(ways)
    rows_of_tokens = rows_of_prompts(samples, batch_size, mesh)
    assert rows_of_tokens % ways == 0
    made = []
    for rows in batches(PROMPTS, samples, batch_size):
        assert len(rows) <= batch_size
        owners = [row // samples for row in rows]
        laid = lay_out_prompts(PROMPTS, owners, batch_size, rows_of_tokens, 8, mesh)
        assert laid.tokens.shape == laid.positions.shape == (rows_of_tokens, 8) and laid.rows.shape == (batch_size,)
        assert (laid.positions[:, 0] == 0).all() and (laid.rows < rows_of_tokens // ways).all()
        tokens, positions = (array.reshape(ways, -1, 8) for array in (laid.tokens, laid.positions))
        for row, owner in enumerate(owners):
            way = row // (batch_size // ways)
            held = tokens[way, laid.rows[row]], positions[way, laid.rows[row]]
            size = len(PROMPTS[owner])
            assert held[0][:size].tolist() == PROMPTS[owner]
            assert held[1].tolist() == [*range(size), *[-1] * (8 - size)]
        if rows_of_tokens == batch_size:
            used = np.arange(len(rows)) % (batch_size // ways)
            assert laid.rows[: len(rows)].tolist() == used.tolist(), "as many prompts as rows: each row has its own"
        made += rows
    assert sorted(made) == list(range(len(PROMPTS) * samples))


def test_prompts_take_no_more_rows_than_they_need():
    assert rows_of_prompts(4, 128, None) == 32
    assert rows_of_prompts(4, 128, mesh_of_ways(32)) == 32, "a prompt for each device"
    assert rows_of_prompts(4, 128, mesh_of_ways(64)) == 64, "a prompt's samples are on two devices: each takes it in"
    assert rows_of_prompts(1, 128, mesh_of_ways(64)) == 128
    assert rows_of_prompts(200, 128, None) == 1


def test_prompts_of_like_length_share_a_batch():
    sizes = [[SIZES[row] for row in rows] for rows in batches(PROMPTS, 1, 4)]
    assert sizes == [[1, 1, 2, 2], [3, 3, 4, 5], [6, 7, 8]]


def test_as_many_rows_are_decoded_together_as_the_model_says_and_the_mesh_can_split():
    config = dataclasses.replace(PRESETS["tiny"], generation_rows=100)
    assert [generation_batch_size(config, mesh_of_ways(ways)) for ways in (1, 8, 100, 256)] == [100, 104, 100, 256]
