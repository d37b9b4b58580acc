"""The stage of supervised fine-tuning: what it hands to the training."""

import pytest
from etils import epath
from ml_collections import ConfigDict

from llama2_jax.pipeline import encoding
from llama2_jax.pipeline.stage_files import write_jsonl
from llama2_jax.stages import finetune
from tests.smallest import Letters, smallest_runtime


def demonstrations(*, seed):
    del seed
    return [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the stage with such sources; returns what the training gets."""
    given = {}
    monkeypatch.setattr(finetune, "finetune", lambda *_, **named: given.update(named) or {})
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda _: Letters())

    def stage(weight, held_out_weight=1.0, **fields):
        source = {"function": f"{__name__}.demonstrations", "format": "dialogues", **fields}
        config = ConfigDict({
            "sources": {"people": {**source, "weight": weight}, "other": source},
            "held_out": {"people": {**source, "weight": held_out_weight}}, "finetune": {},
        })  # fmt: skip
        finetune.run(config, {"tokenizer": tmp_path, "start": tmp_path}, smallest_runtime(tmp_path))
        return given

    return stage


def test_a_source_is_seen_by_its_weight(run):
    given = run(2.5)
    assert given["weights"] == {"people": 2.5, "other": 1.0}
    assert {name: len(encoded) for name, encoded in given["held_out"].items()} == {"people": 1}


def test_a_weight_of_what_is_only_measured_is_refused(run):
    with pytest.raises(ValueError, match="source 'people' has weight"):
        run(1.0, held_out_weight=2.0)


def mixed_demonstrations(*, seed):
    return [{**one, "safety": safety} for safety in (True, False, True, False) for one in demonstrations(seed=seed)]


@pytest.fixture
def trained_on(monkeypatch, tmp_path):
    """Runs the stage on such a part of the safety data; returns its results and how many dialogues it trains on."""
    monkeypatch.setattr(finetune, "finetune", lambda settings, start, dialogues, *_, **__: dialogues)
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda _: Letters())
    source = {"function": f"{__name__}.mixed_demonstrations", "format": "dialogues"}

    def stage(**fields):
        config = ConfigDict({"sources": {"people": source}, "held_out": {}, "finetune": {}, **fields})
        results = finetune.run(config, {"tokenizer": tmp_path, "start": tmp_path}, smallest_runtime(tmp_path))
        return results, len(results["people"])

    return stage


def test_a_part_of_the_safety_data_is_trained_on_where_that_is_configured(trained_on):
    results, dialogues = trained_on(safety_fraction=0.5)
    assert dialogues == 3
    assert results["safety_data"] == {"helpfulness": 2, "safety": 1, "safety_of": 2}
    assert trained_on(safety_fraction=0.0)[1] == 2 and trained_on(safety_fraction=1.0)[1] == 4
    results, dialogues = trained_on()
    assert dialogues == 4 and "safety_data" not in results


def test_records_that_are_no_dialogues_are_refused(run):
    with pytest.raises(ValueError, match="has records of kind 'prompts' and 'dialogues' is wanted here"):
        run(1.0, kind="prompts")


@pytest.mark.parametrize(("role", "file"), [("bags", "bag"), ("samples", "samples"), ("dialogues", "dialogues")])
def test_what_another_stage_sampled_is_read_from_the_file_of_its_role(monkeypatch, tmp_path, role, file):
    """A round of rejection sampling has its own best answers in one file, and those of all rounds in another."""
    folder = epath.Path(tmp_path / "the_round")
    folder.mkdir()
    for length, name in enumerate(("bag", "samples", "dialogues"), 1):
        row = {"messages": demonstrations(seed=0)[0]["messages"][:1], "response": "b", "response_tokens": [98]}
        write_jsonl(folder / f"{name}.jsonl", [row] * length)
    trained = {}
    monkeypatch.setattr(finetune, "finetune", lambda *arguments, **_: trained.update(arguments[2]) or {})
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda _: Letters())
    config = ConfigDict({"sources": {}, "held_out": {}, "finetune": {}})
    finetune.run(config, {"tokenizer": tmp_path, "start": tmp_path, role: (folder,)}, smallest_runtime(tmp_path))
    lengths = {"bag": 1, "samples": 2, "dialogues": 3}
    assert {name: len(encoded) for name, encoded in trained.items()} == {"the_round": lengths[file]}
