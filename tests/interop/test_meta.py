"""Meta's own files: merged and split as model-parallel ranks hold them, and what is wrong with them is said."""

import json
import shutil

import numpy as np
import pytest

from llama2_jax.interop.checkpoint import DTYPES, BadCheckpoint
from llama2_jax.interop.meta import open_meta
from llama2_jax.interop.meta_export import meta_params, write_meta
from llama2_jax.interop.torch_file import TorchFileWriter, read_torch_file
from llama2_jax.models.config import PRESETS, ModelConfig, ffn_hidden
from tests.random_model import FOR_EIGHT, GROUPED, MULTI_HEAD, assert_same, in_memory, random_arrays

FLOAT32 = np.dtype(np.float32)


def split_by_hand(arrays, ranks):
    """What each rank of Meta's model holds: ColumnParallelLinear keeps rows of [outputs, inputs], RowParallelLinear
    columns, ParallelEmbedding columns of [vocab, dim]; norms are everybody's."""
    names = {"query": "attention.wq", "key": "attention.wk", "value": "attention.wv", "output": "attention.wo",
             "gate": "feed_forward.w1", "down": "feed_forward.w2", "up": "feed_forward.w3",
             "attention_norm": "attention_norm", "ffn_norm": "ffn_norm"}  # fmt: skip
    parts = [{} for _ in range(ranks)]
    for rank, part in enumerate(parts):
        part["tok_embeddings.weight"] = np.split(arrays["trunk/embedding"], ranks, axis=1)[rank]
        part["output.weight"] = np.split(arrays["head/kernel"].T, ranks, axis=0)[rank]
        part["norm.weight"] = arrays["trunk/final_norm"]
        for layer in range(len(arrays["trunk/layers/query"])):
            for ours, theirs in names.items():
                own = arrays[f"trunk/layers/{ours}"][layer]
                if own.ndim == 2:
                    own = np.split(own.T, ranks, axis=1 if ours in ("output", "down") else 0)[rank]
                part[f"layers.{layer}.{theirs}.weight"] = own
        part["rope.freqs"] = np.ones(4, np.float32)  # as the first release had it
    return parts


def write_by_hand(folder, config, parts, dtype=FLOAT32, **changes):
    for rank, part in enumerate(parts):
        writer = TorchFileWriter(
            folder / f"consolidated.{rank:02d}.pth", {name: array.shape for name, array in part.items()}, dtype
        )
        for name, array in part.items():
            writer.write(name, np.ascontiguousarray(array, dtype))
        writer.close()
    described = {"dim": config.dim, "n_layers": config.layers, "n_heads": config.heads, "n_kv_heads": config.kv_heads,
                 "multiple_of": 8, "ffn_dim_multiplier": (config.ffn_hidden - 0.5) / int(8 * config.dim / 3),
                 "norm_eps": 1e-5, "vocab_size": -1} | changes  # fmt: skip
    (folder / "params.json").write_text(json.dumps(described))


@pytest.mark.parametrize("ranks", [1, 2, 8])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_ranks_are_merged(tmp_path, ranks, dtype):
    arrays = {name: array.astype(dtype) for name, array in random_arrays(FOR_EIGHT).items()}
    write_by_hand(tmp_path, FOR_EIGHT, split_by_hand(arrays, ranks), dtype)
    checkpoint = open_meta(tmp_path, max_length=64)
    assert (checkpoint.config.kv_heads, checkpoint.config.ffn_hidden, checkpoint.config.vocab_size) == (8, 72, 40)
    assert (checkpoint.dtype, checkpoint.config.max_length) == (dtype, 64)
    assert_same(checkpoint, arrays)


@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_ranks_are_split(tmp_path, ranks):
    arrays = random_arrays(FOR_EIGHT)
    write_meta(in_memory(FOR_EIGHT, arrays), tmp_path, FLOAT32, shards=ranks)
    for rank, wanted in enumerate(split_by_hand(arrays, ranks)):
        found = read_torch_file(tmp_path / f"consolidated.{rank:02d}.pth")
        assert found.keys() == wanted.keys() - {"rope.freqs"}
        for name, tensor in found.items():
            np.testing.assert_array_equal(tensor.view(), wanted[name], err_msg=name, strict=True)


@pytest.mark.parametrize("ranks", [2, 8])
def test_parts_are_parts_of_the_whole(tmp_path, ranks):
    write_meta(in_memory(FOR_EIGHT, random_arrays(FOR_EIGHT)), tmp_path, FLOAT32, shards=ranks)
    checkpoint, rng = open_meta(tmp_path), np.random.default_rng(0)
    for name in ("trunk/embedding", "head/kernel", "trunk/layers/output", "trunk/layers/gate", "trunk/layers/key"):
        layer = 1 if "layers" in name else None
        whole = checkpoint.read(name, layer)
        for _ in range(20):
            part = tuple(slice(*sorted(rng.choice(size + 1, 2, replace=False).tolist())) for size in whole.shape)
            np.testing.assert_array_equal(checkpoint.read(name, layer, part), whole[part])


def test_torch_reads_a_rank(tmp_path):
    torch = pytest.importorskip("torch")
    write_meta(in_memory(FOR_EIGHT, random_arrays(FOR_EIGHT)), tmp_path, DTYPES["bfloat16"], shards=2)
    state = torch.load(tmp_path / "consolidated.01.pth", weights_only=True, mmap=True)
    assert state["layers.0.feed_forward.w2.weight"].shape == (64, 36)
    assert state["tok_embeddings.weight"].dtype == torch.bfloat16


def test_what_torch_saves_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    arrays = random_arrays(GROUPED)
    (part,) = split_by_hand(arrays, 1)
    write_by_hand(tmp_path, GROUPED, [part])
    torch.save({name: torch.tensor(array) for name, array in part.items()}, tmp_path / "consolidated.00.pth")
    assert_same(open_meta(tmp_path), arrays)


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "tiny"])
def test_params_json_of_the_presets_gives_their_width(name):
    params = meta_params(PRESETS[name])
    assert (
        ffn_hidden(params["dim"], params["multiple_of"], params.get("ffn_dim_multiplier")) == PRESETS[name].ffn_hidden
    )


def test_params_json_is_the_released_one():
    assert meta_params(PRESETS["70b"]) == {
        "dim": 8192, "multiple_of": 4096, "ffn_dim_multiplier": 1.3, "n_heads": 64, "n_kv_heads": 8, "n_layers": 80,
        "norm_eps": 1e-5, "vocab_size": 32000,
    }  # fmt: skip
    assert meta_params(PRESETS["7b"]) == {
        "dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32, "norm_eps": 1e-5, "vocab_size": 32000,
    }  # fmt: skip


@pytest.mark.parametrize("hidden", [1, 7, 22, 85, 86, 87, 999, 1024, 5461])
def test_any_width_can_be_told(hidden):
    params = meta_params(ModelConfig(8, dim=32, layers=1, heads=2, kv_heads=2, ffn_hidden=hidden, max_length=8))
    assert ffn_hidden(32, params["multiple_of"], params.get("ffn_dim_multiplier")) == hidden


@pytest.fixture
def folder(tmp_path):
    write_meta(in_memory(GROUPED, random_arrays(GROUPED)), tmp_path, FLOAT32, shards=2)
    return tmp_path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dim": 96}, r"does not fit the weights: its dim is 96, in 2 file\(s\) of weights 48"),
        ({"vocab_size": 32000}, "its vocab_size is 32000, in .* weights 96"),
        ({"ffn_dim_multiplier": None}, "multiple_of and ffn_dim_multiplier, .* width, is 128, .* 80"),
        ({"n_layers": 3}, r"consolidated\.00\.pth: tensor 'layers\.2\.attention_norm\.weight' is missing"),
        ({"n_layers": 1}, r"more layers than in params\.json: layers\.1"),
        ({"n_kv_heads": 6}, r"'layers\.0\.attention\.wk\.weight' has shape \[8, 48\], expected \[24, 48\]"),
        ({"n_heads": None}, "model.heads is None"),
        ({"use_scaled_rope": True}, "fields that Llama 2 does not have: use_scaled_rope: another architecture"),
        ({"moe": {"num_experts": 8}}, "does not have: moe"),
        ({"multiple_of": "x"}, r"params\.json"),
        ({"n_kv_heads": 0}, "model.kv_heads is 0"),
        ({"n_kv_heads": 4}, "model.heads=6 cannot share model.kv_heads=4"),
        ({"rope_scaling": {"factor": 2.0}}, "does not have: rope_scaling"),
        ({"max_seq_len": "long"}, "model.max_length is 'long'"),
        ({"norm_eps": float("nan")}, "model.norm_eps is nan; it must be a finite number above 0"),
        ({"norm_eps": -1}, "model.norm_eps is -1"),
        ({"norm_eps": None}, "model.norm_eps is None"),
        ({"norm_eps": "1e-5"}, "model.norm_eps is '1e-5'"),
        ({"rope_theta": 0}, "model.rope_theta is 0"),
        ({"rope_theta": -5}, "model.rope_theta is -5"),
        ({"rope_theta": float("nan")}, "model.rope_theta is nan"),
        ({"rope_theta": True}, "model.rope_theta is True"),
        ({"dim": None}, r"params\.json: dim is None; it must be a whole number"),
        ({"multiple_of": 0}, r"params\.json: multiple_of is 0; it must be a whole number"),
        ({"ffn_dim_multiplier": float("inf")}, r"params\.json: ffn_dim_multiplier is inf"),
        ({"ffn_dim_multiplier": "1.3"}, r"params\.json: ffn_dim_multiplier is '1\.3'; it must be a finite number"),
    ],
)  # fmt: skip
def test_params_json_at_odds_with_the_weights(folder, fields, message):
    path = folder / "params.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(BadCheckpoint, match=message):
        open_meta(folder)


def test_a_length_in_params_json_is_the_models(folder):
    assert open_meta(folder).config.max_length == 4096
    path = folder / "params.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_seq_len": 2048}))
    assert open_meta(folder).config.max_length == open_meta(folder, max_length=2048).config.max_length == 2048
    with pytest.raises(
        BadCheckpoint, match=r"^[^:]*params\.json: max_seq_len is 2048, but 512 is asked for \(--max_length\)"
    ):
        open_meta(folder, max_length=512)


@pytest.mark.parametrize("content", ["", "[1]", "{}"])
def test_params_json_that_is_none(folder, content):
    (folder / "params.json").write_text(content)
    with pytest.raises(
        BadCheckpoint, match=r"params\.json (is not JSON|contains a list|: the field|.*missing)|is missing"
    ):
        open_meta(folder)
    (folder / "params.json").unlink()
    with pytest.raises(BadCheckpoint, match=r"params\.json is missing"):
        open_meta(folder)


def test_a_rank_is_missing_or_cut_off(folder):
    path = folder / "consolidated.01.pth"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadCheckpoint, match=r"consolidated\.01\.pth is cut off"):
        open_meta(folder)
    path.unlink()
    with pytest.raises(BadCheckpoint, match="does not fit the weights: its dim is 48, in 1 file"):
        open_meta(folder)
    shutil.move(folder / "consolidated.00.pth", path)
    with pytest.raises(
        BadCheckpoint, match=r"weight files \['consolidated\.01\.pth'\]; expected consolidated\.00\.pth"
    ):
        open_meta(folder)


def test_a_missing_tensor_and_one_of_another_shape(tmp_path):
    parts = split_by_hand(random_arrays(MULTI_HEAD), 2)
    del parts[1]["layers.2.feed_forward.w2.weight"]
    write_by_hand(tmp_path, MULTI_HEAD, parts)
    with pytest.raises(BadCheckpoint, match=r"01\.pth: tensor 'layers\.2\.feed_forward\.w2\.weight' is missing"):
        open_meta(tmp_path)
    parts[1]["layers.2.feed_forward.w2.weight"] = np.zeros((32, 27), np.float32)
    (tmp_path / "consolidated.00.pth").unlink()
    (tmp_path / "consolidated.01.pth").unlink()
    write_by_hand(tmp_path, MULTI_HEAD, parts)
    with pytest.raises(BadCheckpoint, match=r"w2\.weight' has shape \[32, 27\], expected \[32, 28\]"):
        open_meta(tmp_path)


def test_ranks_of_two_models(tmp_path):
    parts = [split_by_hand(random_arrays(FOR_EIGHT, seed=seed), 2)[seed] for seed in range(2)]
    write_by_hand(tmp_path, FOR_EIGHT, parts)
    checkpoint = open_meta(tmp_path)
    with pytest.raises(BadCheckpoint, match=r"01\.pth: 'norm\.weight' differs from that in consolidated\.00\.pth"):
        checkpoint.read("trunk/final_norm")


@pytest.mark.parametrize("copied", [0, 1, 5])
def test_a_rank_that_is_a_copy_of_another(tmp_path, copied):
    write_meta(in_memory(FOR_EIGHT, random_arrays(FOR_EIGHT)), tmp_path, FLOAT32, shards=8)
    open_meta(tmp_path)
    shutil.copyfile(tmp_path / f"consolidated.0{copied}.pth", tmp_path / "consolidated.07.pth")
    with pytest.raises(BadCheckpoint, match=rf"07\.pth has the same weights as consolidated\.0{copied}\.pth: download"):
        open_meta(tmp_path)


@pytest.mark.parametrize("part", ["tok_embeddings.weight", "layers.0.attention.wq.weight", "output.weight"])
def test_ranks_that_differ_in_one_matrix_are_no_copies(tmp_path, part):
    parts = split_by_hand(random_arrays(FOR_EIGHT), 2)
    parts[1] |= {name: parts[0][name] for name in parts[0] if name != part}
    write_by_hand(tmp_path, FOR_EIGHT, parts)
    open_meta(tmp_path)


@pytest.mark.parametrize("name", ["params.json", "tokenizer.model", "consolidated.01.pth"])
def test_a_folder_in_a_files_place_is_said(folder, name):
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    with pytest.raises(BadCheckpoint, match=rf"{name}.* (Is a directory|is a folder)"):
        open_meta(folder)


@pytest.mark.parametrize("shards", [0, 4, 8])
def test_a_split_that_does_not_divide(tmp_path, shards):
    with pytest.raises(BadCheckpoint, match=rf"6 heads and 2 .* cannot be split over {shards} file"):
        write_meta(in_memory(GROUPED, random_arrays(GROUPED)), tmp_path, FLOAT32, shards=shards)


def test_a_scalar_model_has_no_place(tmp_path):
    with pytest.raises(BadCheckpoint, match="is a scalar model, which Meta's format does not support: use huggingface"):
        write_meta(in_memory(GROUPED, random_arrays(GROUPED, "scalar"), "scalar"), tmp_path, FLOAT32)


def test_the_tokenizer_may_lie_in_the_folder_above(tmp_path, tokenizer_model):
    (tmp_path / "7B").mkdir()
    config = ModelConfig(300, dim=16, layers=1, heads=2, kv_heads=2, ffn_hidden=24, max_length=8)
    write_meta(in_memory(config, random_arrays(config)), tmp_path / "7B", FLOAT32)
    assert open_meta(tmp_path / "7B").tokenizer_model is None
    shutil.copyfile(tokenizer_model, tmp_path / "tokenizer.model")
    assert open_meta(tmp_path / "7B").tokenizer_model == tmp_path / "tokenizer.model"
