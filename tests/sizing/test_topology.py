"""The axes of a TPU slice that are rings."""

import pytest

from llama2_jax.sizing.topology import rings


@pytest.mark.parametrize(
    ("topology", "closed"),
    [
        ("v5p:4x4x4", [True, True, True]),
        ("v5p:8x8x12", [True, True, True]),
        ("v5p:2x4x4", None),
        ("v5e:16x16", [True, True, False]),
        ("v6e:8x16", [False, True, False]),
        ("v5e:4x4", None),
        ("v5p:nonsense", None),
    ],
)
def test_axes_of_whole_cubes_and_axes_of_16_are_rings(topology, closed):
    assert rings(topology) == ({"wrap": closed} if closed else {})
