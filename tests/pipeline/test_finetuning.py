"""Fine-tuning on dialogues."""

import itertools

import jax
import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict

from llama2_jax.models.llama import init_language_model
from llama2_jax.pipeline.finetuning import (
    EPOCHS,
    check_kept_epochs,
    encode_rows,
    finetune,
    longest_part,
    read_demonstrations,
    read_sampled,
)
from llama2_jax.pipeline.model_training import language_model_loss
from llama2_jax.pipeline.stage_files import read_json, write_jsonl
from llama2_jax.text.dialogue import encode_dialogue
from llama2_jax.training.checkpoints import Checkpoints
from llama2_jax.training.metrics import read_metrics
from llama2_jax.training.model_folder import load_model, save_model_description
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import create_state
from tests.smallest import Letters, smallest_model, smallest_runtime


def demonstrations(*, seed, count, answer="yes", loss=None):
    del seed
    record = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": answer}] * 2}
    return [{**record, **({"loss": loss} if loss else {})} for _ in range(count)]


def test_demonstrations_are_trained_on_in_every_answer_unless_they_say_otherwise(tmp_path):
    source = {"function": f"{__name__}.demonstrations", "format": "dialogues"}
    sources = ConfigDict(
        {
            "all": {**source, "arguments": {"count": 2}},
            "last": {**source, "arguments": {"count": 1, "loss": "last"}},
        }
    )
    dialogues = read_demonstrations(sources, Letters(), smallest_runtime(tmp_path))
    assert {name: len(encoded) for name, encoded in dialogues.items()} == {"all": 2, "last": 1}
    trained = {
        name: Letters().decode(encoded[0].tokens[encoded[0].loss_mask == 1]).split()
        for name, encoded in dialogues.items()
    }
    assert trained == {"all": ["yes", "yes"], "last": ["yes"]}


def test_what_models_answered_is_trained_on_by_its_ids_and_only_in_the_answer(tmp_path):
    """The best samples of two stages; the text of an answer is not what its ids say, to see which one is used."""
    asked = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    for name in ("one", "two"):
        ids = [*map(ord, f" {name}"), Letters.eos_id]
        write_jsonl(tmp_path / name / "bag.jsonl", [{"messages": asked, "response": "text", "response_tokens": ids}])
    folders = (epath.Path(tmp_path / "one"), epath.Path(tmp_path / "two"))
    sampled = read_sampled(folders, "bag.jsonl", Letters())
    assert list(sampled) == ["one", "two"]
    for name, (encoded,) in sampled.items():
        assert encoded.tokens[encoded.loss_mask == 1].tolist() == [*map(ord, f" {name}"), Letters.eos_id]
        assert "a [/INST] b" in Letters().decode(encoded.tokens)
    assert read_sampled(folders[0], "bag.jsonl", Letters()).keys() == {"one"}
    assert read_sampled((), "bag.jsonl", Letters()) == {}


SETTINGS = {
    "batch_size": 2, "length": 64, "epochs": 2, "too_long": "raise", "accumulation": 1,
    "learning_rate": 1e-2, "warmup_steps": 1, "warmup_fraction": 0.0, "final_learning_rate_fraction": 0.1,
    "optimizer": {"b1": 0.9, "b2": 0.95, "eps": 1e-5, "weight_decay": 0.1, "clip": 1.0},
    "save_every": 100, "log_every": 1,
}  # fmt: skip


def dialogue(answer):
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": answer}]
    return encode_dialogue(Letters(), messages)


def test_a_dialogue_longer_than_the_context_is_refused_by_name(tmp_path):
    dialogues = {"vendor": [dialogue("short"), dialogue("long " * 20), dialogue("long " * 30)]}
    with pytest.raises(ValueError, match=r"source 'vendor', dialogue 1: 119 tokens do not fit the length 64; 2 of 3"):
        finetune(ConfigDict(SETTINGS), tmp_path, dialogues, Letters.bos_id, smallest_runtime(tmp_path))


def saved_start(folder):
    """The parameters of a model of random weights, which is in the folder."""
    model = smallest_model()
    start = init_language_model(model, jax.random.key(0))
    save_model_description(folder, model, "language")
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(0, create_state(start, make_optimizer(OptimizerConfig())))
    return start


@pytest.mark.slow
def test_a_model_learns_the_answers_of_all_sources(tmp_path):
    runtime, start = smallest_runtime(tmp_path / "stage"), saved_start(tmp_path / "start")
    dialogues = {"vendor": [dialogue("yes")] * 8, "bag": [dialogue("no")] * 4 + [dialogue("long " * 20)]}
    settings = ConfigDict({**SETTINGS, "too_long": "drop"})
    results = finetune(settings, tmp_path / "start", dialogues, Letters.bos_id, runtime)
    assert results["dialogues"] == {"vendor": 8, "bag": 4}
    assert results["too_long"] == {"vendor": 0, "bag": 1}
    # 12 dialogues of about 24 tokens, two a row, two rows a batch; two epochs.
    assert results["steps"] == 2 * 3
    # "▁yes▁" and "▁no▁" with the spaces around them, and EOS.
    assert results["answer_tokens"] == 8 * 6 + 4 * 5
    batch = {
        "tokens": dialogue("yes").tokens[None], "loss_mask": dialogue("yes").loss_mask[None],
        "segment_ids": np.ones((1, len(dialogue("yes"))), np.int32),
        "positions": np.arange(len(dialogue("yes")), dtype=np.int32)[None],
    }  # fmt: skip
    loss = language_model_loss(runtime.model, runtime.mesh)
    assert loss(load_model(runtime.folder).params, batch) < loss(start, batch) - 0.3


@pytest.mark.slow
def test_the_loss_on_held_out_answers_falls_as_the_run_goes(tmp_path):
    runtime, start = smallest_runtime(tmp_path / "stage"), saved_start(tmp_path / "start")
    settings = ConfigDict({**SETTINGS, "epochs": 4, "evaluate_every": 5, "held_out_batches": 2})
    # What is trained on as well says nothing of other dialogues: it is dropped.
    held_out = {"vendor": [dialogue("yes!")] * 3 + [dialogue("yes")] * 2, "other": [dialogue("yes!")] * 40}
    finetune(settings, tmp_path / "start", {"vendor": [dialogue("yes")] * 8}, 1, runtime, held_out=held_out)
    curve = [(row["step"], row["held_out_loss"]) for row in read_metrics(runtime.folder / "metrics.jsonl")
             if "held_out_loss" in row]  # fmt: skip
    assert [step for step, _ in curve] == [5, 8]
    # Every held-out dialogue is the same one, whatever batch it is in.
    one = dialogue("yes!")
    batch = {
        "tokens": one.tokens[None], "loss_mask": one.loss_mask[None], "segment_ids": np.ones((1, len(one)), np.int32),
        "positions": np.arange(len(one), dtype=np.int32)[None],
    }  # fmt: skip
    loss = language_model_loss(runtime.model, runtime.mesh)
    assert curve[1][1] == pytest.approx(float(loss(load_model(runtime.folder).params, batch)), rel=1e-5)
    assert curve[1][1] < curve[0][1] < float(loss(start, batch))


@pytest.mark.slow
def test_a_source_with_twice_the_weight_is_seen_twice_an_epoch(tmp_path):
    saved_start(tmp_path / "start")
    dialogues = {"vendor": [dialogue("yes")] * 8, "bag": [dialogue("no")] * 4}
    steps = {}
    for name, weights in (("plain", None), ("weighted", {"vendor": 2.0, "bag": 1.0})):
        runtime = smallest_runtime(tmp_path / name)
        results = finetune(
            ConfigDict(SETTINGS), tmp_path / "start", dialogues, Letters.bos_id, runtime, weights=weights
        )
        steps[name] = results["steps"]
    # Two dialogues a row, two rows a batch, two epochs: 12 and 20 dialogues an epoch.
    assert steps == {"plain": 2 * 3, "weighted": 2 * 5}


@pytest.mark.slow
def test_without_a_held_out_dialogue_that_fits_there_is_no_curve(tmp_path):
    runtime = smallest_runtime(tmp_path / "stage")
    saved_start(tmp_path / "start")
    settings = ConfigDict({**SETTINGS, "too_long": "drop", "evaluate_every": 1, "held_out_batches": 2})
    held_out = {"vendor": [dialogue("long " * 20)]}
    finetune(settings, tmp_path / "start", {"vendor": [dialogue("yes")] * 8}, 1, runtime, held_out=held_out)
    assert not any("held_out_loss" in row for row in read_metrics(runtime.folder / "metrics.jsonl"))


@pytest.mark.slow
def test_the_models_of_chosen_epochs_are_kept(tmp_path):
    saved_start(tmp_path / "start")
    runtime = smallest_runtime(tmp_path / "stage")
    # 8 dialogues, two a row and two rows a batch: two steps an epoch.
    settings = ConfigDict({**SETTINGS, "epochs": 5, "kept_epochs": (2, 4)})
    results = finetune(settings, tmp_path / "start", {"vendor": [dialogue("yes")] * 8}, Letters.bos_id, runtime)
    assert results["steps"] == 10
    assert read_json(runtime.folder / EPOCHS) == [{"epoch": n, "step": 2 * n} for n in (2, 3, 4)]
    query = [load_model(runtime.folder, step=step).params["trunk"]["layers"]["query"] for step in (4, 6, 8, 10)]
    assert not any(np.array_equal(one, other) for one, other in itertools.pairwise(query))
    np.testing.assert_array_equal(load_model(runtime.folder).params["trunk"]["layers"]["query"], query[-1])


@pytest.mark.parametrize("kept", [(5,), (4, 2), (1, 6), (2, 3, 4)])
def test_epochs_that_there_are_not_cannot_be_kept(kept):
    with pytest.raises(ValueError, match=r"kept_epochs=.*: wanted the first and the last epoch .* of 5"):
        check_kept_epochs(ConfigDict({"epochs": 5, "kept_epochs": kept}))
    check_kept_epochs(ConfigDict({"epochs": 5, "kept_epochs": ()}))
    check_kept_epochs(ConfigDict({"epochs": 5, "kept_epochs": (5, 5)}))


def test_long_dialogues_are_split_where_that_is_configured():
    messages = [{"role": role, "content": "a" * 9} for role in ("user", "assistant")] * 4
    rows = {"web": [{"messages": messages, "loss": "last"}, {"messages": messages[:2]}]}
    split = longest_part(ConfigDict({"too_long": "split", "length": 90}))
    encoded = encode_rows(rows, Letters(), split)["web"]
    assert [len(one.starts) for one in encoded] == [2, 2, 1] and max(map(len, encoded)) <= 90
    # "last" is the last answer of each part; its ten letters and spaces, and EOS.
    assert [int(one.loss_mask.sum()) for one in encoded] == [12, 12, 12]
    assert longest_part(ConfigDict({"too_long": "drop", "length": 90})) is None
    assert len(encode_rows(rows, Letters())["web"]) == 2
