"""How long the rows are that sequences are read in, and how many are read together."""

import dataclasses

import jax
import pytest

from llama2_jax.inference.rows import row_length, rows_at_once
from llama2_jax.sharding.mesh import make_mesh
from tests.smallest import smallest_model


@pytest.mark.parametrize(
    ("tokens", "longest", "length"),
    [
        (1, 4096, 256),
        (256, 4096, 256),
        (257, 4096, 1024),
        (1025, 4096, 4096),
        (257, 960, 960),
        (960, 960, 960),
        (9, 48, 48),
    ],
)
def test_the_next_length_that_the_model_can_read(tokens, longest, length):
    assert row_length(tokens, longest) == length


@pytest.mark.parametrize(
    ("devices", "length", "rows"), [(1, 256, 32), (1, 960, 8), (1, 9000, 1), (4, 960, 8), (8, 4096, 8)]
)
def test_about_scoring_tokens_are_read_at_once_as_many_rows_on_each_device(devices, length, rows):
    config = dataclasses.replace(smallest_model(), scoring_tokens=8192)
    mesh = make_mesh(1, devices, 1, devices=jax.devices()[:devices])
    assert rows_at_once(config, mesh, length) == rows
