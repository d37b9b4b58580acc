"""The ablation of attention: models of one size, and every one of them in the table."""

import dataclasses
import json

import pytest

from benchmarks import attention_ablation
from llama2_jax.models.config import parameter_count


@pytest.mark.parametrize("kv_heads", attention_ablation.KV_HEADS)
def test_all_have_as_many_parameters(kv_heads):
    tiny = dataclasses.replace(attention_ablation.TINY, kv_heads=attention_ablation.TINY.heads)
    wide = attention_ablation.enlarged_ffn(attention_ablation.TINY, kv_heads)
    other = dataclasses.replace(tiny, kv_heads=kv_heads, ffn_hidden=wide)
    assert parameter_count(other) == pytest.approx(parameter_count(tiny), rel=0.001)


def test_what_runs_and_what_is_printed(tmp_path, monkeypatch, capsys):
    """Every command leaves what it would; each is called once, and the losses are told apart by it."""
    called = []

    def call(command, folder):
        called.append(command)
        if command[0] == "llama2_jax.convert":
            folder.mkdir(parents=True)
            return
        stage = "pretrain" if "pretrain.py" in command[1] else "uptrain"
        loss = len(called) / 100
        (folder / stage).mkdir(parents=True)
        results = {"held_out_loss": loss, "start_held_out_loss": loss + 1}
        (folder / stage / "stage.json").write_text(json.dumps({"results": results}))

    monkeypatch.setattr(attention_ablation, "call", call)
    monkeypatch.setattr("sys.argv", ["x", "--seeds", "3", "4", "--workdir", str(tmp_path)])
    attention_ablation.main()
    first = capsys.readouterr().out.splitlines()
    # Three pretrainings, seven conversions and as many trainings further, for each of two seeds.
    assert len(called) == 2 * (3 + 7 + 7)
    assert len(first) == 2 + 3 + 7 + 1
    found = json.loads(first[-1])
    assert all(len(losses) == 2 for losses in found.values())
    assert found["1 heads, random"][0]["before"] == found["1 heads, random"][0]["after"] + 1
    attention_ablation.main()
    assert len(called) == 34, "what is finished is not run again"
    assert capsys.readouterr().out.splitlines() == first
