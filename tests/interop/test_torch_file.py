"""Files of torch.save: as torch reads and writes them, and nothing in them is ever run."""

import collections
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from llama2_jax.interop.checkpoint import DTYPES, BadCheckpoint
from llama2_jax.interop.torch_file import TorchFileWriter, read_torch_file
from tests.interop.written import some_arrays, write_with


def arrays_of(dtype):
    return some_arrays(dtype, b=(200, 130))


def write(path, arrays):
    write_with(TorchFileWriter, path, arrays)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_what_is_written_is_read(tmp_path, dtype):
    arrays = arrays_of(dtype)
    write(tmp_path / "x.pth", arrays)
    tensors = read_torch_file(tmp_path / "x.pth")
    assert list(tensors) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(tensors[name].view(), array, strict=True)
    assert zipfile.ZipFile(tmp_path / "x.pth").testzip() is None


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_torch_reads_what_we_write(tmp_path, dtype, mapped):
    torch = pytest.importorskip("torch")
    arrays = arrays_of(dtype)
    write(tmp_path / "x.pth", arrays)
    loaded = torch.load(tmp_path / "x.pth", weights_only=True, mmap=mapped)
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        assert str(loaded[name].dtype) == f"torch.{dtype}"
        assert loaded[name].data_ptr() % 64 == 0
        np.testing.assert_array_equal(loaded[name].float().numpy(), array.astype(np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_we_read_what_torch_writes(tmp_path, dtype):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    base = torch.randn(6, 8).to(getattr(torch, dtype))
    tensors = collections.OrderedDict(
        plain=base,
        a_part_of_the_same_storage=base[2:5, 1:7],
        transposed=base.T,
        spread=base[0:1].expand(3, 8),
        parameter=torch.nn.Parameter(base.clone()),
        scalar=base.sum(),
    )
    tensors._metadata = {"": {"version": 1}}  # as state_dict() has it
    torch.save(tensors, tmp_path / "x.pth")
    found = read_torch_file(tmp_path / "x.pth")
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == DTYPES[dtype]
        np.testing.assert_array_equal(
            found[name].view().astype(np.float32), tensor.detach().float().numpy(), err_msg=name, strict=True
        )


def with_pickle(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", content)
        archive.writestr("x/data/0", bytes(16))
        archive.writestr("x/version", "3\n")


class Harmful:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, protocol):
    trace = tmp_path / "trace"
    with_pickle(tmp_path / "x.pth", pickle.dumps({"a": Harmful(trace)}, protocol))
    with pytest.raises(BadCheckpoint, match=r"x\.pth is refused: the pickle loads posix\.mkdir"):
        read_torch_file(tmp_path / "x.pth")
    assert not trace.exists()
    pickle.loads(pickle.dumps(Harmful(trace)))
    assert trace.exists()  # it would have


@pytest.mark.parametrize(
    "name", ["builtins eval", "torch _utils", "torch.storage UntypedStorage", "collections Counter"]
)
def test_other_names_are_refused(tmp_path, name):
    with_pickle(tmp_path / "x.pth", pickle.GLOBAL + name.replace(" ", "\n").encode() + b"\n" + pickle.STOP)
    with pytest.raises(BadCheckpoint, match="the pickle loads " + name.replace(" ", r"\.")):
        read_torch_file(tmp_path / "x.pth")


@pytest.mark.parametrize("content", [{"a": 1}, [1, 2], {"model": {}}, "text"])
def test_what_is_no_dictionary_of_tensors_is_refused(tmp_path, content):
    with_pickle(tmp_path / "x.pth", pickle.dumps(content, 2))
    with pytest.raises(BadCheckpoint, match="is not a dictionary of nothing but tensors"):
        read_torch_file(tmp_path / "x.pth")


def test_negated_views_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.ones(3), "b": torch._neg_view(torch.ones(3))}, tmp_path / "x.pth")
    with pytest.raises(
        BadCheckpoint, match=r"x\.pth is refused: tensor 'b' is stored with the marks .*neg.*resolve_neg"
    ):
        read_torch_file(tmp_path / "x.pth")


def test_a_tensor_without_a_name_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.ones(3), 5: torch.ones(3)}, tmp_path / "x.pth")
    with pytest.raises(BadCheckpoint, match=r"x\.pth is refused: it has a tensor under 5, expected names only"):
        read_torch_file(tmp_path / "x.pth")


def test_sizes_that_are_no_whole_numbers_are_refused(tmp_path):
    write(tmp_path / "x.pth", {"a": np.zeros(3, np.float32)})
    content = zipfile.ZipFile(tmp_path / "x.pth").read("x/data.pkl")
    three = pickle.LONG1 + b"\x01\x03"
    assert content.count(three) == 2  # the storage's and the tensor's
    head, tail = content[: content.rindex(three)], content[content.rindex(three) + len(three) :]
    with_pickle(tmp_path / "y.pth", head + pickle.BINFLOAT + struct.pack(">d", 3) + tail)
    with pytest.raises(BadCheckpoint, match=r"tensor 'a' has the shape \(3\.0,\) and the strides \(1,\)"):
        read_torch_file(tmp_path / "y.pth")


def test_a_broken_link_and_a_folder_are_named(tmp_path):
    (tmp_path / "x.pth").symlink_to("nowhere")
    with pytest.raises(BadCheckpoint, match=r"x\.pth is a link to nowhere, which is no file"):
        read_torch_file(tmp_path / "x.pth")
    with pytest.raises(BadCheckpoint, match=" is a folder, expected a file of weights"):
        read_torch_file(tmp_path)


def test_a_file_cut_off_anywhere_is_refused(tmp_path):
    write(tmp_path / "x.pth", arrays_of(np.dtype(np.float32)))
    whole = (tmp_path / "x.pth").read_bytes()
    for length in range(0, len(whole), 3001):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(BadCheckpoint, match="cut off"):
            read_torch_file(tmp_path / "cut.pth")


def test_a_damaged_pickle_is_refused_or_stays_inside_the_file(tmp_path):
    write(tmp_path / "x.pth", arrays_of(np.dtype(np.float32)))
    whole = zipfile.ZipFile(tmp_path / "x.pth").read("x/data.pkl")
    rng, refused = np.random.default_rng(0), 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        with_pickle(tmp_path / "y.pth", bytes(damaged))
        try:
            for tensor in read_torch_file(tmp_path / "y.pth").values():
                tensor.view()
        except BadCheckpoint:
            refused += 1
    assert refused == 300  # the arrays are larger than the storage


def test_a_compressed_record_is_refused(tmp_path):
    write(tmp_path / "x.pth", arrays_of(np.dtype(np.float32)))
    with (
        zipfile.ZipFile(tmp_path / "x.pth") as old,
        zipfile.ZipFile(tmp_path / "y.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(BadCheckpoint, match="is compressed"):
        read_torch_file(tmp_path / "y.pth")


def test_files_older_than_torch_1_6_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.ones(3)}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(BadCheckpoint, match=r"older than 1\.6"):
        read_torch_file(tmp_path / "x.pth")


def test_a_zip_of_something_else(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    (tmp_path / "x.pth").write_bytes(buffer.getvalue())
    with pytest.raises(BadCheckpoint, match=r"without one data\.pkl"):
        read_torch_file(tmp_path / "x.pth")
