"""Pieces, casts and the search for NaN."""

import ml_dtypes
import numpy as np
import pytest

from llama2_jax.interop.checkpoint import (
    DTYPES,
    BadCheckpoint,
    cast,
    check_tokenizer,
    compute_dtype,
    parameter_shapes,
    pieces,
    refuse_nan,
    widest,
)
from llama2_jax.models.config import PRESETS, parameter_count
from tests.random_model import GROUPED, in_memory, random_arrays


@pytest.mark.parametrize("size", ["tiny", "7b", "70b"])
def test_pieces_are_all_parameters_once(size):
    config = PRESETS[size]
    everything = list(pieces(config, "language"))
    assert sum(piece.size for piece in everything) == parameter_count(config)
    assert len({(piece.name, piece.layer) for piece in everything}) == len(everything) == 3 + 9 * config.layers


def test_a_scalar_model_differs_in_its_head_alone():
    language, scalar = parameter_shapes(GROUPED, "language"), parameter_shapes(GROUPED, "scalar")
    assert {name for name in language if language[name] != scalar[name]} == {"head/kernel"}
    assert scalar["head/kernel"] == (48, 1)


@pytest.mark.parametrize("name", DTYPES)
def test_cast_rounds_as_numpy_does(name):
    array = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    out = cast(array.T, DTYPES[name], "it")
    assert out.flags.c_contiguous
    np.testing.assert_array_equal(out, array.T.astype(DTYPES[name]), strict=True)


def test_cast_leaves_alone_what_is_right():
    array = np.ones((3, 4), np.float32)
    assert cast(array, array.dtype, "it") is array


def test_cast_refuses_to_make_infinities():
    with pytest.raises(BadCheckpoint, match="head/kernel has values too large for float16: choose bfloat16 or float32"):
        cast(np.asarray([1.0, 7e4], np.float32), DTYPES["float16"], "head/kernel")
    assert np.isinf(cast(np.asarray([np.inf], np.float32), DTYPES["float16"], "it"))  # was one before


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_nan_is_refused_by_name_and_layer(value, dtype):
    arrays = {name: array.astype(dtype) for name, array in random_arrays(GROUPED).items()}
    checkpoint = refuse_nan(in_memory(GROUPED, arrays))
    checkpoint.read("trunk/layers/gate", 1)
    arrays["trunk/layers/gate"][1, 40, 3] = value
    checkpoint.read("trunk/layers/gate", 0)
    with pytest.raises(BadCheckpoint, match=r"1 of 3840 values of .*gate, layer 1 are NaN or infinite"):
        checkpoint.read("trunk/layers/gate", 1)


def test_nan_is_found_in_what_is_larger_than_a_block(monkeypatch):
    monkeypatch.setattr("llama2_jax.interop.checkpoint._AT_ONCE", 100)
    arrays = random_arrays(GROUPED)
    arrays["trunk/embedding"][95, 47] = np.nan
    with pytest.raises(BadCheckpoint, match="1 of 4608 values of trunk/embedding"):
        refuse_nan(in_memory(GROUPED, arrays)).read("trunk/embedding")


def test_dtypes_are_put_together_without_loss():
    half, brain, full = (DTYPES[name] for name in ("float16", "bfloat16", "float32"))
    assert widest({half}) == half
    assert widest({half, brain}) == widest({brain, full}) == full
    assert (compute_dtype(full), compute_dtype(half), compute_dtype(np.dtype(ml_dtypes.bfloat16))) == (
        "float32", "bfloat16", "bfloat16",
    )  # fmt: skip


def test_a_tokenizer_of_another_model(tokenizer_model):
    assert check_tokenizer(tokenizer_model, 300).vocab_size == 300
    with pytest.raises(BadCheckpoint, match=r"tokenizer\.model has 300 tokens and the model's embedding 96 rows"):
        check_tokenizer(tokenizer_model, 96)


def test_a_tokenizer_that_is_none(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"nothing of the kind")
    with pytest.raises(BadCheckpoint, match=r"tokenizer\.model \(19 bytes\) is not a SentencePiece model"):
        check_tokenizer(tmp_path / "tokenizer.model", 96)
