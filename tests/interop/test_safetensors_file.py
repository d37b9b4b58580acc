"""safetensors files: as the format's own library reads and writes them, and broken ones refused."""

import json
import struct

import numpy as np
import pytest

from llama2_jax.interop.checkpoint import DTYPES, BadCheckpoint
from llama2_jax.interop.safetensors_file import SafetensorsWriter, read_safetensors
from tests.interop.written import some_arrays, write_with


def arrays_of(dtype):
    return some_arrays(dtype, größe=(2, 3, 4), b=(1, 1))


def write(path, arrays):
    write_with(SafetensorsWriter, path, arrays)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_what_is_written_is_read(tmp_path, dtype):
    arrays = arrays_of(dtype)
    write(tmp_path / "x", arrays)
    tensors = read_safetensors(tmp_path / "x")
    assert list(tensors) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(tensors[name].view(), array, strict=True)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_the_library_reads_what_we_write(tmp_path, dtype):
    library = pytest.importorskip("safetensors")
    arrays = arrays_of(dtype)
    write(tmp_path / "x", arrays)
    with library.safe_open(tmp_path / "x", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.get_tensor(name), array, strict=True)


@pytest.mark.parametrize("dtype", [*DTYPES.values(), np.dtype(np.int64), np.dtype(np.bool_)], ids=str)
def test_we_read_what_the_library_writes(tmp_path, dtype):
    library = pytest.importorskip("safetensors.numpy")
    arrays = arrays_of(dtype)
    library.save_file(arrays, tmp_path / "x")
    for name, tensor in read_safetensors(tmp_path / "x").items():
        np.testing.assert_array_equal(tensor.view(), arrays[name], strict=True)


def test_a_file_cut_off_anywhere_is_refused(tmp_path):
    write(tmp_path / "x", arrays_of(np.dtype(np.float32)))
    whole = (tmp_path / "x").read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(BadCheckpoint, match="cut"):
            read_safetensors(tmp_path / "cut")


def test_a_damaged_header_is_refused_or_means_the_same(tmp_path):
    write(tmp_path / "x", arrays_of(np.dtype(np.float32)))
    whole = bytearray((tmp_path / "x").read_bytes())
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    rng, refused = np.random.default_rng(0), 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(header)] = rng.integers(256)
        (tmp_path / "x").write_bytes(damaged)
        try:
            for tensor in read_safetensors(tmp_path / "x").values():
                tensor.view()
        except BadCheckpoint:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, r"'t' of F32\[2\] has 4 bytes, expected 8"),
        ({"dtype": "F4", "shape": [2], "data_offsets": [0, 8]}, "unknown dtype F4"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}, r"'t' has .* \[2\] and .* \[-8, 0\], expected whole"),
        (
            {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]},
            r"the shape \[2\.0\] and .*, expected whole numbers",
        ),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0.0, 8.0]}, r"expected whole numbers"),
        ({"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}, r"expected whole numbers"),
        ({"dtype": "F32", "shape": [True, 2], "data_offsets": [0, 8]}, r"expected whole numbers"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "has 4 bytes behind its last tensor"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}, "'t' begins at byte .*the file is damaged"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}, "extends to byte .* cut off"),
        ({"dtype": "F32", "shape": [2]}, "header cannot be read"),
        ([], "header cannot be read"),
    ],
)
def test_a_header_that_lies(tmp_path, entry, message):
    header = json.dumps({"t": entry}).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(BadCheckpoint, match=message):
        read_safetensors(tmp_path / "x")


def entry(begin, end):
    return {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (json.dumps({"a": entry(0, 8), "b": entry(0, 8)}), "'b' begins at byte .*, expected .*, where the one before"),
        (json.dumps({"a": entry(0, 8), "b": entry(4, 8)}), "'b' begins at byte"),
        (json.dumps({"a": entry(0, 4)}), "has 4 bytes behind its last tensor, expected none"),
        (json.dumps({"a": entry(0, 8)})[:-1] + ', "a": ' + json.dumps(entry(0, 4)) + "}", "a is there twice"),
        ("{}", "has 8 bytes behind its last tensor"),
    ],
)
def test_what_the_library_refuses_is_refused(tmp_path, header, message):
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(8))
    with pytest.raises(BadCheckpoint, match=message):
        read_safetensors(tmp_path / "x")
    library = pytest.importorskip("safetensors")
    with pytest.raises(library.SafetensorError):
        library.safe_open(tmp_path / "x", framework="numpy")


def test_tensors_without_elements_and_in_another_order_are_read(tmp_path):
    header = json.dumps({"a": entry(4, 8), "none": entry(4, 4), "b": entry(0, 4)})
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header.encode() + struct.pack("<2f", 1, 2))
    tensors = read_safetensors(tmp_path / "x")
    assert [tensors["a"].view()[0], tensors["b"].view()[0]] == [2, 1]


def test_promises_of_the_writer_are_kept(tmp_path):
    writer = SafetensorsWriter(tmp_path / "x", {"a": (2, 3), "b": (4,)}, np.dtype(np.float32))
    with pytest.raises(ValueError, match="was promised"):
        writer.write("a", np.zeros((3, 2), np.float32))
    writer.write("b", np.zeros(4, np.float32))
    with pytest.raises(ValueError, match="not written"):
        writer.close()
    writer.abandon()
