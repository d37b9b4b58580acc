"""Which kind of model a folder holds."""

import pytest

from llama2_jax.interop.checkpoint import BadCheckpoint
from llama2_jax.interop.recognise import recognise


@pytest.mark.parametrize(
    ("file", "kind"), [("model.json", "orbax"), ("config.json", "huggingface"), ("params.json", "meta")]
)
def test_kinds_are_known_by_their_description(tmp_path, file, kind):
    (tmp_path / file).touch()
    assert recognise(tmp_path) == kind
    assert recognise(str(tmp_path)) == kind


def test_what_is_no_model(tmp_path):
    with pytest.raises(BadCheckpoint, match=r"has no model: found nothing; expected one of: model\.json with"):
        recognise(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(BadCheckpoint, match=r"found model\.safetensors; expected .*config\.json with"):
        recognise(tmp_path)
    with pytest.raises(BadCheckpoint, match="is a file; expected a folder"):
        recognise(tmp_path / "model.safetensors")
    with pytest.raises(BadCheckpoint, match="nowhere does not exist"):
        recognise(tmp_path / "nowhere")


def test_two_kinds_in_one_folder(tmp_path):
    (tmp_path / "params.json").touch()
    (tmp_path / "config.json").touch()
    with pytest.raises(BadCheckpoint, match=r"config\.json and params\.json: leave one kind of model there"):
        recognise(tmp_path)
