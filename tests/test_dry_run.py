"""What an experiment needs, told before it runs: sizes, work, and whether it fits."""

import importlib
import importlib.util
import json
import os

import jax
import pytest

from experiments import rlhf_v5
from llama2_jax import dry_run
from llama2_jax.models.config import parameter_count
from llama2_jax.models.flops import training_flops
from llama2_jax.recipe import RecipeError
from llama2_jax.sizing.chips import Chip
from llama2_jax.sizing.table import table
from tests.smallest import shrink

CHIP = Chip("a chip", 2**30, peak_flops=1e12, memory_bandwidth=1e11, port_bandwidth=1e10)
STAGES = ("tokenizer", "pretrain", "sft")


def experiment(**changes):
    config = shrink(rlhf_v5.get_config())
    config.model.update({"max_length": 64, "heads": 4, "kv_heads": 4, "scan_layers": True, **changes})
    config.mesh = {"data": 2, "fsdp": 2, "tensor": 2}
    config.pretrain.accumulation = 2
    return config


@pytest.fixture(scope="module")
def report():
    return dry_run.run(experiment(), stages=STAGES, chip=CHIP)


def program(report, stage, name):
    stage = next(one for one in report["stages"] if one["stage"] == stage)
    return next(one for one in stage["programs"] if one["program"] == name)


@pytest.mark.slow
def test_operations_are_those_of_the_closed_form(report):
    found, model = program(report, "pretrain", "train step"), report["model"]
    needed = training_flops(dry_run.recipe.plan(experiment()).model, 8, 64)
    assert found["model_flops"] == needed
    # Rows this short are attended to as a whole, not as the causal half.
    other_half = 3 * 8 * 64 * model["layers"] * 4 * model["dim"] * 32
    assert found["flops"] * report["devices"] == needed + other_half


@pytest.mark.slow
def test_memory_adds_up(report):
    for stage in report["stages"]:
        for one in stage["programs"]:
            assert one["peak_bytes"] == sum(one[f"{part}_bytes"] for part in ("parameter", "optimizer", "activation"))
            assert one["parameter_bytes"] + one["optimizer_bytes"] == sum(one["held"].values())
            assert one["activation_bytes"] >= one["memory"]["temporaries"] > 0
        assert stage["peak_bytes"] == max((one["peak_bytes"] for one in stage["programs"]), default=0)
    found = program(report, "pretrain", "train step")
    whole = 4 * parameter_count(dry_run.recipe.plan(experiment()).model)
    assert whole / 4 <= found["parameter_bytes"] < 1.1 * whole / 4, "over fsdp and tensor, but for the norms"
    # Two moments a parameter and the count of steps.
    assert found["optimizer_bytes"] == 2 * found["parameter_bytes"] + 4


@pytest.mark.slow
def test_times_are_those_of_the_slowest_resource(report):
    found = program(report, "pretrain", "train step")
    parts = [found[f"{part}_seconds"] for part in ("compute", "memory", "collective")]
    assert found["compute_seconds"] == found["flops"] / CHIP.peak_flops
    assert 0.999 * max(parts) <= found["seconds"] <= 1.001 * sum(parts)
    assert found["mfu"] == found["model_flops"] / (8 * CHIP.peak_flops * found["seconds"])
    assert found["collective_bytes"]["all-gather"] > 0 and found["guessed_loops"] == 0
    stage = report["stages"][1]
    assert (stage["unit"], stage["unit_seconds"], stage["unit_mfu"]) == ("step", found["seconds"], found["mfu"])


@pytest.mark.slow
def test_the_report_is_plain_json_and_a_table(report, tmp_path):
    dry_run.write_json(report, str(tmp_path / "deep/report.json"))
    assert json.loads((tmp_path / "deep/report.json").read_text()) == report
    assert report["fits"] and report["mesh"] == {"data": 2, "fsdp": 2, "tensor": 2} and report["topology"] is None
    assert [stage["stage"] for stage in report["stages"]] == list(STAGES)
    text = table(report)
    assert "tokenizer\n  the stage does not describe its work on devices" in text
    assert "one step: " in text and f"MFU {report['stages'][1]['unit_mfu']:.1%}" in text
    assert text.endswith("of 1 GiB at most.") and all(len(line) < 140 for line in text.splitlines() if "%" in line)


@pytest.mark.slow
def test_operations_that_are_hidden_from_the_count_are_missed(report):
    found = program(report, "pretrain", "train step")
    assert found["counted_of_needed"] == found["flops"] * 8 / found["model_flops"] >= 1
    assert "were found in the program" not in table(report)
    found = {**found, "counted_of_needed": 0.4}
    stage = {**report["stages"][1], "programs": [found]}
    assert "train step: only 40% of the operations that the model needs were" in table({**report, "stages": [stage]})


@pytest.mark.slow
def test_what_does_not_fit_is_said(report):
    # A chip that holds pretraining's step, of two microbatches, and not that of fine-tuning.
    steps = [program(report, stage, "train step")["peak_bytes"] for stage in STAGES[1:]]
    small = Chip("small", (steps[0] + steps[1]) // 2)
    again = dry_run.run(experiment(), stages=STAGES, chip=small)
    assert not again["fits"] and [stage["fits"] for stage in again["stages"]] == [True, True, False]
    assert program(again, STAGES[2], "train step")["fits"] is False
    assert "It does not fit in" in table(again) and "sft, train step (" in table(again)


@pytest.mark.parametrize(
    ("changes", "stages", "message"),
    [
        ({"heads": 3, "dim": 33, "kv_heads": 3}, STAGES, "is odd"),
        ({"kv_heads": 1}, STAGES, "model.kv_heads=1 over mesh.tensor=2"),
        ({}, ("absent",), "--stages=absent: no such stage; choose from tokenizer, pretrain"),
    ],
)
def test_what_a_run_would_be_refused_for_is_refused(changes, stages, message):
    with pytest.raises(ValueError, match=message):
        dry_run.run(experiment(**changes), stages=stages)


def test_a_mesh_that_does_not_fit_the_slice_is_refused(monkeypatch):
    monkeypatch.setattr(dry_run, "slice_devices", lambda topology: jax.devices()[:6])
    with pytest.raises(RecipeError, match="data=2 x fsdp=2 x tensor=2 does not fit 6"):
        dry_run.run(experiment(), topology="v5e:2x3")


def test_without_the_compiler_for_tpus_one_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf'pip install "jax\[tpu\]=={jax.__version__}"'):
        dry_run.run(experiment(), topology="v5e:4x4")


def test_where_the_compiler_finds_no_room_the_stage_does_not_fit(monkeypatch):
    class TooLarge:
        def lower(self, *arguments):
            return self

        def compile(self):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Used 20G of 15.75G hbm.")

    monkeypatch.setattr("llama2_jax.pipeline.device_programs.language_model_step", lambda *settings: TooLarge())
    report = dry_run.run(experiment(), stages=["sft"], chip=CHIP)
    found = program(report, "sft", "train step")
    assert not report["fits"] and not found["fits"] and "Used 20G of 15.75G" in found["error"]
    assert "sft, train step (>1 GiB)" in table(report)


def test_every_stage_of_the_recipe_tells_of_its_work():
    plan = dry_run.recipe.plan(experiment())
    modules = {name: importlib.import_module(plan.config[name].run) for name in plan.stages}
    silent = [name for name, module in modules.items() if not hasattr(module, "device_work")]
    assert silent == ["tokenizer", "report"]
    for name in (name for name in plan.stages if name not in silent):
        work = modules[name].device_work(plan.config[name], plan.model, plan.mesh)
        assert work.programs and all(one.uses and one.model_flops > 0 for one in work.programs)
    ppo = modules["rlhf_v5_ppo"].device_work(plan.config.rlhf_v5_ppo, plan.model, plan.mesh)
    assert {one.name: one.calls for one in ppo.programs} == {
        "prefill": 1, "decode": 1, "helpfulness scores": 1, "safety scores": 1, "policy log-probabilities": 1,
        "reference log-probabilities": 1, "critic values": 1, "critic step": 2, "policy step": 2,
        "general scores": 0,  # now and then
    }  # fmt: skip
    for one in ppo.programs:
        held = {model.name for model in (*one.uses, *one.co_resident)}
        models = {"policy", "critic", "reference", "helpfulness", "safety", "general"}
        assert held - {"policy, decoding weights"} == models
        assert ("policy, decoding weights" in held) == (one.name in ("prefill", "decode"))
        assert sum(model.optimizer_bytes > 0 for model in (*one.uses, *one.co_resident)) == 2
    decode = next(one for one in ppo.programs if one.name == "decode")
    assert decode.loop_trips == plan.config.rlhf_v5_ppo.max_new_tokens == 16


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu, the compiler for TPUs, is not installed"
)
def test_a_slice_that_is_not_here(monkeypatch):
    for name in ("TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    config = experiment(dim=256, ffn_hidden=512, vocab_size=1024)
    report = dry_run.run(config, stages=["pretrain"], topology="v5p:2x2x2")
    assert report["devices"] == 8 and report["chip"]["name"] == "TPU v5p" and "libtpu" in report["versions"]
    found = program(report, "pretrain", "train step")
    other_half = 3 * 8 * 64 * 2 * 4 * 256 * 32
    assert found["flops"] * 8 == pytest.approx(found["model_flops"] + other_half, rel=1e-6)
    assert found["collective_bytes"]["all-gather"] > 0 and 0 < found["mfu"] < 1
    # Rows that splash attends to: its backward pass makes the scores again, twice, and multiplies its result with that
    # one's gradient, a product of each token's vectors that the compiler writes as a sum.
    config = experiment(dim=512, ffn_hidden=1024, vocab_size=1024, max_length=512, compute_dtype="bfloat16")
    found = program(dry_run.run(config, stages=["pretrain"], topology="v5p:2x2x2"), "pretrain", "train step")
    again = 3 * 0.5 * 8 * 512 * 2 * 2 * 512 * 512 + 2 * 2 * 8 * 512 * 512
    assert found["flops"] * 8 == pytest.approx(found["model_flops"] + again, rel=1e-6)
    with pytest.raises(ValueError, match="libtpu does not know this slice"):
        dry_run.run(config, stages=["pretrain"], topology="v5p:3x3")
