"""A rehearsal runs every stage of an experiment at its scale, and what it changes is known."""

import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from ml_collections import ConfigDict

from experiments import distillation, rlhf_v1, rlhf_v5
from experiments.parts.scales import SCALES
from llama2_jax import recipe, rehearsal
from llama2_jax.models.config import ModelConfig
from tests.small_real_data import write_real_data

ROOT = pathlib.Path(__file__).parents[1]


def leaves(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, ConfigDict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@pytest.mark.parametrize("scale", SCALES)
def test_every_change_is_listed_and_nothing_else_is_changed(scale):
    real = rlhf_v5.get_config(scale)
    rehearsed = rehearsal.rehearse(real)
    before, after = dict(leaves(real.copy_and_resolve_references())), dict(leaves(rehearsed.config))
    listed = {change.field: (change.real, change.rehearsed) for change in rehearsed.changes}
    assert listed == {
        name: (before.get(name), after[name]) for name in after if name not in before or before[name] != after[name]
    }
    assert before.keys() <= after.keys()
    kept = ("path", "format", "part", "function", "learning_rate", "temperature", "temperatures", "inputs", "run")
    assert not [name for name in listed if name.rpartition(".")[2] in kept]


@pytest.mark.parametrize("scale", SCALES)
def test_the_model_keeps_its_shape(scale):
    real = rlhf_v5.get_config(scale)
    small = rehearsal.rehearse(real).config
    model = ModelConfig(**small.model)
    assert model.heads // model.kv_heads == real.model.heads // real.model.kv_heads
    assert model.ffn_hidden / model.dim == pytest.approx(real.model.ffn_hidden / real.model.dim, rel=0.15)
    assert not [size for size in small.mesh.values() if size > 2 or model.kv_heads % max(size, 1)]
    assert model.remat == real.model.remat


def test_it_computes_in_float32_and_says_so():
    rehearsed = rehearsal.rehearse(rlhf_v5.get_config("7b"))
    assert rehearsed.config.model.compute_dtype == "float32"
    assert any(sentence.startswith("bfloat16: it computes in float32") for sentence in rehearsed.untried)
    assert not any("float32" in sentence for sentence in rehearsal.rehearse(rlhf_v5.get_config("tiny")).untried)


@pytest.mark.parametrize("scale", SCALES)
def test_the_order_of_numbers_of_a_kind_is_kept(scale):
    """What is larger than another number of its kind is not smaller in the rehearsal."""
    real = rlhf_v5.get_config(scale)
    kinds = {}
    for change in rehearsal.rehearse(real).changes:
        name = change.field.rpartition(".")[2]
        others = set(rehearsal.ROW_FIELDS) - {*rehearsal.BATCHES, "limit"}  # a limit may be cut to RECORDS
        for fields in (rehearsal.BATCHES, tuple(sorted(others)), rehearsal.LENGTH_FIELDS):
            if name in fields and isinstance(change.real, int):
                kinds.setdefault(fields, set()).add((change.real, change.rehearsed))
    assert kinds
    for pairs in kinds.values():
        for (one, small_one), (other, small_other) in itertools.combinations(sorted(pairs), 2):
            assert one <= other and small_one <= small_other


@pytest.mark.parametrize(
    ("changes", "divisor"),
    [
        ({}, 8),
        ({"pretrain.length": 1280}, 4),
        ({"sft.finetune.length": 640}, 2),
        ({"rlhf_v2_safety_reward.length": 200}, 1),  # shorter than what a rehearsal keeps: as it is
        ({"model.max_length": 640}, 2),
    ],
)
def test_the_shortest_rows_of_a_training_decide_how_lengths_are_divided(changes, divisor):
    real = rlhf_v5.get_config("7b")
    real.update_from_flattened_dict(changes | {"answer_tokens": 64})
    small = rehearsal.rehearse(real).config
    assert small.model.max_length == real.model.max_length // divisor
    for name in ("pretrain", "rlhf_v2_safety_reward", "general_reward"):
        assert small[name].length == real[name].length // divisor
    assert small.sft.finetune.length == real.sft.finetune.length // divisor


def test_the_miniatures_rows_are_not_divided():
    assert not [change for change in rehearsal.rehearse(rlhf_v5.get_config("tiny")).changes if "length" in change.field]


def test_what_no_longer_fits_is_left_out_and_that_is_said():
    """Dialogues of the miniature fit the real context, so a stage stops where one does not."""
    real = rlhf_v5.get_config("7b,miniature")
    real.rlhf_v1_safety_reward.too_long = "truncate_left"
    rehearsed = rehearsal.rehearse(real)
    policies = {name: value for name, value in leaves(rehearsed.config) if name.endswith("too_long")}
    assert policies.pop("rlhf_v1_safety_reward.too_long") == "truncate_left" and set(policies.values()) == {"drop"}
    said = rehearsal.summary(rehearsed, "rlhf_v5:7b-miniature")
    assert "that the shorter rows cannot hold, left out: " in said and "finetuning.too_long 'raise' -> 'drop'" in said
    undivided = rehearsal.rehearse(rlhf_v5.get_config("tiny")).config
    assert undivided.sft.finetune.too_long == undivided.rlhf_v1_safety_reward.too_long == "raise"


def few_prompts(config):
    """280 prompts for 1,000 held-out comparisons."""
    prompts = config.rlhf_v1_annotation.prompts
    prompts.helpful.limit, prompts.harmless.limit = 200, 80
    config.rlhf_v1_annotation.test_comparisons = 1000
    return config


def test_what_the_real_run_could_not_do_is_refused():
    with pytest.raises(recipe.RecipeError, match=r"rlhf_v1_annotation: test_comparisons=1000, but 280 prompts"):
        rehearsal.rehearse(few_prompts(rlhf_v1.get_config("7b")))
    rehearsal.rehearse(few_prompts(rlhf_v1.get_config("7b")), until="sft")


def test_a_relation_that_breaks_breaks_in_the_small_too():
    real = few_prompts(rlhf_v1.get_config("7b"))
    small = ConfigDict({"prompts": real.rlhf_v1_annotation.prompts.copy_and_resolve_references()})
    small.test_comparisons = 1000
    rehearsal._shrink_fields(small, 8)
    assert sum(source.limit for source in small.prompts.values()) < small.test_comparisons


def test_given_models_are_left_out_and_a_given_tokenizer_is_used():
    config = rlhf_v1.get_config("7b")
    config.given.pretrain, config.given.tokenizer = "/models/llama", "/models/llama"
    rehearsed = rehearsal.rehearse(config)
    assert rehearsed.config.given.pretrain == "" and rehearsed.config.given.tokenizer == "/models/llama"
    assert rehearsed.config.model.vocab_size == 32_000
    assert any("/models/llama; pretrain is run in its place" in sentence for sentence in rehearsed.untried)


def test_a_tokenizer_that_is_imported_keeps_its_pieces():
    """As that of the larger model whose samples a smaller one learns from."""
    assert rehearsal.rehearse(distillation.get_config("7b")).config.model.vocab_size == 32_000


def test_it_says_what_the_files_cannot_give(tmp_path):
    config = rlhf_v1.get_config("7b")
    config.data.root = str(write_real_data(tmp_path, conversations=200))
    (warning,) = [one for one in rehearsal.shortages(config) if "rlhf_v1_annotation" in one]
    assert "the real run would stop" in warning and "test_comparisons=1000" in warning
    config.rlhf_v1_annotation.test_comparisons = 1
    assert not [one for one in rehearsal.shortages(config) if "rlhf_v1_annotation" in one]


def rehearse(scale, data, folder, *flags):
    """Starts the command as a user does, with the tests' XLA flags and a rehearsal's own number of devices."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_NUM_CPU_DEVICES"}
    # Here computing takes longer than compiling: 70b took 231 s of processor time with level 0, and 181 s with 1.
    environment["XLA_FLAGS"] += " --xla_backend_optimization_level=1"
    command = [
        sys.executable, "-m", "llama2_jax.main", f"--config=experiments/rlhf_v5.py:{scale}", "--rehearse",
        f"--config.data.root={data}", f"--workdir={folder}", f"--config.compilation_cache={folder.parent / 'cache'}",
        # In fewer minutes: 7b took 162 s of processor time with 192 and 24, and takes 125 s.
        "--config.model.max_length=128", "--config.answer_tokens=16", "--config.benchmarks.max_new_tokens=16", *flags,
    ]  # fmt: skip
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "killed"), [("7b", True), ("70b", False)])
def test_a_scale_runs_to_its_report(scale, killed, tmp_path_factory):
    data = tmp_path_factory.getbasetemp() / "rehearsal" / "data"
    if not data.exists():
        write_real_data(data, conversations=250)
    workdir = data.parent / scale
    if killed:  # in the middle of the rounds; the same command goes on
        begun = rehearse(scale, data, workdir)
        while begun.poll() is None and not (workdir / "rlhf_v2_annotation" / "stage.json").exists():
            time.sleep(0.2)
        begun.send_signal(signal.SIGKILL)
        output, _ = begun.communicate()
        assert begun.returncode == -signal.SIGKILL, output
    done = rehearse(scale, data, workdir)
    output, _ = done.communicate()
    assert done.returncode == 0, output
    assert "It changes, and nothing else" in output and "Rehearsed 33 stages" in output, output
    report = json.loads((workdir / "report" / "report.json").read_text())
    assert [version["name"] for version in report["versions"]][-1] == "rlhf_v5"
    measured = {row["version"] for row in report["benchmark_tasks"] if row["value"] is not None}
    assert measured == {"pretrain", "sft", "rlhf_v5"}
    assert json.loads((workdir / "rehearsal.json").read_text())["changes"]


@pytest.mark.slow
def test_the_scale_that_accumulates_most_runs_through_its_first_round(tmp_path):
    """1b, whose batches are for one device; its later rounds differ from 7b's in sizes alone."""
    write_real_data(tmp_path / "data", conversations=250)
    done = rehearse("1b", tmp_path / "data", tmp_path / "1b", "--until=rlhf_v1_rejection_sampling")
    output, _ = done.communicate()
    assert done.returncode == 0, output
    assert (tmp_path / "1b" / "rlhf_v1_rejection_sampling" / "stage.json").exists()
