"""The best of a training's epochs, by what its model answers and not by its loss."""

import jax
import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict

from llama2_jax.inference.generate import Sample
from llama2_jax.models.llama import init_language_model
from llama2_jax.pipeline import encoding, sampling
from llama2_jax.pipeline.stage_files import read_json, read_jsonl, write_json
from llama2_jax.sharding.mesh import make_mesh
from llama2_jax.stages import choose_checkpoint
from llama2_jax.stages.choose_checkpoint import choose
from llama2_jax.training.checkpoints import Checkpoints
from llama2_jax.training.model_folder import load_model, save_model_description
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import create_state
from tests.smallest import Letters, smallest_model, smallest_runtime

# By epoch what its model answers; the judge likes what is long.
ANSWERS = {1: "abcdef", 2: "ab", 3: "abcd", 4: "abc"}


def development(*, seed):
    del seed
    return [
        {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "yes"}]} for n in range(3)
    ]


def judge(rows, *, seed):
    del seed
    assert all(row["reference"]["content"] == "yes" and row["messages"][-1]["role"] == "user" for row in rows)
    return [{"helpfulness": len(row["response"]) / 10} for row in rows]


@pytest.fixture
def trained(tmp_path):
    """A training of four epochs whose models were kept."""
    folder, model = epath.Path(tmp_path / "training"), smallest_model()
    save_model_description(folder, model, "language")
    with Checkpoints(folder / "checkpoints", kept_steps=range(9)) as checkpoints:
        for epoch in ANSWERS:
            params = init_language_model(model, jax.random.key(epoch))
            checkpoints.save(2 * epoch, create_state(params, make_optimizer(OptimizerConfig())))
    write_json(folder / "epochs.json", [{"epoch": epoch, "step": 2 * epoch} for epoch in ANSWERS])
    return folder


@pytest.fixture
def stage(trained, tmp_path, monkeypatch):
    epochs = {
        np.asarray(init_language_model(smallest_model(), jax.random.key(epoch))["head"]["kernel"]).sum(): epoch
        for epoch in ANSWERS
    }

    def generate(model, params, prompts, sampling, key, eos_id, **_):
        answer = ANSWERS[epochs[np.asarray(params["head"]["kernel"]).sum()]]
        tokens = np.asarray([*map(ord, answer), eos_id], np.int32)
        return [Sample(index, tokens, True, np.zeros(len(tokens))) for index in range(len(prompts))]

    monkeypatch.setattr(sampling, "generate", generate)
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda _: Letters())
    (tmp_path / "stage").mkdir()

    def run(**changes):
        runtime = smallest_runtime(tmp_path / "stage")
        config = ConfigDict({
            "epochs": (2, 4), "quality": "helpfulness", "batch_size": 2, "length": 48,
            "development": {"made": {"function": f"{__name__}.development", "format": "dialogues"}},
            "judge": {"function": f"{__name__}.judge", "arguments": {}},
            "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 8, **changes,
        })  # fmt: skip
        return choose_checkpoint.run(config, {"tokenizer": tmp_path, "trained": trained}, runtime), runtime.folder

    return run


def test_the_best_answers_among_the_epochs_decide_and_its_model_is_the_stage_s(stage, trained):
    results, folder = stage()
    assert [(one["epoch"], one["step"]) for one in results["epochs"]] == [(1, 2), (2, 4), (3, 6), (4, 8)]
    assert [one["quality"] for one in results["epochs"]] == pytest.approx([0.6, 0.2, 0.4, 0.3])
    assert results["chosen_epoch"] == 3, "the first epoch is better, and none to choose from"
    assert all(3 < one["loss"] < 7 and one["answers"] == 3 for one in results["epochs"])
    by_loss = min(results["epochs"][1:], key=lambda one: one["loss"])
    assert results["lowest_loss_epoch"] == by_loss["epoch"]
    jax.tree.map(
        np.testing.assert_array_equal, load_model(folder).params, load_model(trained, step=6).params
    )  # fmt: skip
    assert read_json(folder / "epoch_quality.json") == results
    assert {row["response"] for row in read_jsonl(folder / "answers_epoch_3.jsonl")} == {"abcd"}


def test_what_was_measured_is_not_measured_again(stage, monkeypatch):
    results, _ = stage()
    monkeypatch.setitem(ANSWERS, 2, "abcdefgh")
    assert stage()[0] == results


def test_a_dialogue_that_fills_no_row_has_no_loss(stage):
    results, _ = stage(length=20)
    assert {one["loss"] for one in results["epochs"]} == {None}
    assert (results["lowest_loss_epoch"], results["chosen_epoch"]) == (None, 3)


def test_the_dev_score_and_not_the_loss_chooses():
    """The loss is lowest where the answers are worst."""
    measured = [{"epoch": n, "quality": n / 10, "loss": float(n)} for n in range(1, 6)]
    found = choose(measured, 2, 4)
    assert (found["chosen_epoch"], found["lowest_loss_epoch"]) == (4, 2)
    assert found["loss_and_quality"] == pytest.approx(1.0)
    same = [{**one, "quality": 0.5} for one in measured]
    assert choose(same, 2, 4)["chosen_epoch"] == 2 and choose(same, 2, 4)["loss_and_quality"] is None
    with pytest.raises(ValueError, match=r"epochs=\(7, 9\): measured are \[1, 2, 3, 4, 5\]"):
        choose(measured, 7, 9)


def test_a_training_that_kept_no_epochs(stage, trained):
    (trained / "epochs.json").unlink()
    with pytest.raises(ValueError, match=r"has kept no epochs; set its finetune.kept_epochs, .*--redo=training"):
        stage()


def test_a_field_that_no_verdict_has(stage):
    with pytest.raises(ValueError, match="the_stage: quality='beauty': no verdict has that field"):
        stage(quality="beauty")


@pytest.mark.parametrize(("epochs", "right"), [((5, 10), True), ((1, 15), False), ((4, 10), False), ((9, 6), False)])
def test_the_epochs_to_choose_from_are_checked_before(epochs, right):
    inputs = {"trained": ConfigDict({"finetune": {"kept_epochs": (5, 10)}})}
    if right:
        choose_checkpoint.check(ConfigDict({"epochs": epochs}), inputs, None)
    else:
        with pytest.raises(ValueError, match=r"epochs=.*kept_epochs=\(5, 10\)"):
            choose_checkpoint.check(ConfigDict({"epochs": epochs}), inputs, None)


def test_its_work_on_devices_is_described():
    config = ConfigDict({
        "inputs": {"annotator_helpfulness": "a"}, "judge": {"function": "f"}, "max_new_tokens": 8, "top_p": 0.9,
        "batch_size": 2, "length": 48,
    })  # fmt: skip
    mesh = make_mesh(data=1, fsdp=1, tensor=1, devices=jax.devices()[:1])
    work = choose_checkpoint.device_work(config, smallest_model(), mesh)
    assert [program.name for program in work.programs] == [
        "prefill", "decode", "held-out loss", "annotator_helpfulness scores",
    ]  # fmt: skip
