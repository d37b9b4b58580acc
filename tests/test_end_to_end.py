"""The whole recipe, shrunk: it runs, it reports, and cut off anywhere it goes on to the same bits."""

import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from experiments import bag_ablation, distillation, reward_ablation, reward_scaling, rlhf_v5, safety_scaling
from llama2_jax import recipe
from llama2_jax.pipeline import sampling
from llama2_jax.stages import ppo, rejection_sampling
from llama2_jax.training import loop
from llama2_jax.training.checkpoint_folder import CheckpointError
from llama2_jax.training.checkpoints import Checkpoints
from llama2_jax.training.interruption import InterruptedRunError, Interruption
from llama2_jax.training.metrics import MetricsWriter
from llama2_jax.training.model_folder import load_model
from tests.smallest import shrink
from tests.two_processes import started

pytestmark = pytest.mark.slow

VERSIONS = ["sft", "rlhf_v1", "rlhf_v2", "rlhf_v3", "rlhf_v4", "rlhf_v5_rejection_sampling", "rlhf_v5"]


class CutOff(BaseException):
    """Stands for a kill: no code of the package catches it."""


def run(workdir, until=""):
    return recipe.run(shrink(rlhf_v5.get_config()), str(workdir), until=until)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The workdir of a run that nothing disturbed; to be left as it is."""
    workdir = tmp_path_factory.mktemp("finished")
    run(workdir)
    return workdir


@pytest.fixture
def begun(finished, tmp_path):
    """A copy of the finished run that ends before a stage."""

    def copy(stage):
        for name in rlhf_v5.get_config().stages:
            if name == stage:
                return tmp_path
            shutil.copytree(finished / name, tmp_path / name)
        raise AssertionError(f"no stage {stage}")

    return copy


@pytest.fixture
def cut_off(monkeypatch):
    """Runs stages and kills them in a function's nth call: before it does anything, or when it has done its work."""

    def cut(workdir, until, owner, name, call, after=False):
        original, calls = getattr(owner, name), []

        def wrapper(*arguments, **options):
            calls.append(None)
            if len(calls) == call and not after:
                raise CutOff
            result = original(*arguments, **options)
            if len(calls) == call:
                raise CutOff
            return result

        with monkeypatch.context() as patched:
            patched.setattr(owner, name, wrapper)
            with pytest.raises(CutOff):
                run(workdir, until)

    return cut


def rows(path):
    """A file's rows, without what a clock says."""
    return [
        {k: v for k, v in json.loads(line).items() if k != "tokens_per_second"}
        for line in path.read_text().splitlines()
    ]


def read_report(workdir):
    """The report but for its times."""
    return {k: v for k, v in json.loads((workdir / "report" / "report.json").read_text()).items() if k != "seconds"}


def assert_same_stage(one, other):
    """Two runs of a stage: the same results, files and, bit for bit, parameters."""
    assert (
        json.loads((one / "stage.json").read_text())["results"]
        == json.loads((other / "stage.json").read_text())["results"]
    )
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in other.iterdir())
    for path in one.glob("*.jsonl"):
        assert rows(path) == rows(other / path.name), path.name
    if (one / "model.json").exists():
        jax.tree.map(np.testing.assert_array_equal, load_model(one).params, load_model(other).params)


def test_the_report_tells_what_every_version_reached(finished):
    report = json.loads((finished / "report" / "report.json").read_text())
    assert [version["name"] for version in report["versions"]] == VERSIONS
    measured = {
        "helpfulness", "violation_rate", "false_refusal_rate", "win_rate_vs_sft", "instruction_kept",
        "new_instruction_kept", "win_rate_vs_previous",
        "reward_helpfulness", "reward_safety", "answer_tokens",
    }  # fmt: skip
    for version in report["versions"]:
        assert measured <= version.keys()
        assert 0 <= version["helpfulness"] <= 1 and 0 <= version["violation_rate"] <= 1
        assert version["instruction_kept"].keys() == {"2"}
        assert 0 < version["instruction_attention"]["2"] < 1
        # What helpfulness is made of, on questions that training does not ask and on those that it does.
        assert all(0 <= version[f"{seen}{part}"] <= 1 for seen in ("", "seen_") for part in ("content", "style"))
    assert (report["evaluation_prompts"], report["seen_prompts"]) == (40, 13)
    assert "on unseen prompts: helpfulness" in (finished / "report" / "index.html").read_text()


def test_the_report_has_two_reward_models_a_round(finished):
    report = json.loads((finished / "report" / "report.json").read_text())
    models = [(model["round"], model["kind"]) for model in report["reward_models"]]
    assert models == [(number, kind) for number in range(1, 6) for kind in ("helpfulness", "safety")]
    held_out = [annotation["test_comparisons"] for annotation in report["annotations"]]
    for model in report["reward_models"]:
        pairs = sum(model["pairs"][domain]["all"] or 0 for domain in ("helpfulness", "safety"))
        assert pairs == sum(held_out[: model["round"]]) - model["left_out"]["same_tokens_in_test"]
    assert len(report["annotations"]) == len(report["rejection_sampling"]) == 5
    assert len(report["ppo"]) == 1


def test_the_report_has_the_seconds_of_every_stage(finished):
    report = json.loads((finished / "report" / "report.json").read_text())
    assert set(report["seconds"]) == set(rlhf_v5.get_config().stages) - {"report"}
    assert all(seconds > 0 for seconds in report["seconds"].values())


def test_every_row_that_was_sampled_says_where_it_comes_from(finished):
    configured = set(rlhf_v5.get_config().rlhf_v1_annotation.temperatures)
    for number in range(1, 6):
        for row in rows(finished / f"rlhf_v{number}_annotation" / "comparisons.jsonl"):
            temperatures = {version["temperature"] for version in row["sources"].values()}
            assert len(temperatures) == 2 and temperatures <= configured
        for row in rows(finished / f"rlhf_v{number}_rejection_sampling" / "samples.jsonl"):
            assert row["round"] == number and row["response_tokens"][-1] == 2  # EOS


def test_no_prompt_is_held_out_in_one_round_and_trained_on_in_another(finished):
    prompts = {
        name: {
            json.dumps(row["messages"])
            for number in range(1, 6)
            for row in rows(finished / f"rlhf_v{number}_annotation" / f"{name}.jsonl")
        }
        for name in ("comparisons", "comparisons_test")
    }
    assert prompts["comparisons_test"] and not prompts["comparisons"] & prompts["comparisons_test"]


def test_from_the_fourth_round_on_the_bag_is_of_all_rounds(finished):
    sampled = {
        number: {
            json.dumps(row["messages"]) for row in rows(finished / f"rlhf_v{number}_rejection_sampling/samples.jsonl")
        }
        for number in range(1, 6)
    }
    for number in range(1, 6):
        bag = rows(finished / f"rlhf_v{number}_rejection_sampling" / "bag.jsonl")
        allowed = range(1, number + 1) if number >= 4 else (number,)
        assert {row["round"] for row in bag} <= set(allowed)
        assert len(bag) == min(30, len(set().union(*(sampled[earlier] for earlier in allowed))))
        assert len({json.dumps(row["messages"]) for row in bag}) == len(bag), "one answer to a prompt"


def test_a_second_call_runs_nothing(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    records = run(finished)
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    assert list(records) == list(rlhf_v5.get_config().stages)


# The pretraining has 12 steps, and a checkpoint after 5, 10 and 12.
@pytest.mark.parametrize(
    ("owner", "name", "call", "after"),
    [
        (loop, "_next_batch", 4, False),
        (loop, "_next_batch", 9, False),
        (Checkpoints, "save", 1, True),
        (Checkpoints, "save", 2, False),
        (Checkpoints, "save", 3, True),
    ],
    ids=["before any checkpoint", "between two", "behind the first", "before the second", "behind the last"],
)
def test_pretraining_that_was_cut_off(finished, begun, cut_off, owner, name, call, after):
    workdir = begun("pretrain")
    cut_off(workdir, "pretrain", owner, name, call, after)
    assert not (workdir / "pretrain" / "stage.json").exists()
    run(workdir, until="pretrain")
    assert_same_stage(workdir / "pretrain", finished / "pretrain")


# PPO has 4 iterations; the held-out reward is measured, and all is saved, at 0, 2 and 4.
@pytest.mark.parametrize(
    ("owner", "name", "call", "after"),
    [
        (ppo, "collect", 2, True),
        (ppo, "collect", 4, False),
        (MetricsWriter, "write", 4, True),
        (Checkpoints, "save", 2, True),
        (Checkpoints, "save", 3, True),
    ],
    ids=[
        "within the second iteration",
        "behind the third iteration",
        "behind a held-out reward",
        "behind the second checkpoint",
        "behind the third checkpoint",
    ],
)
def test_ppo_that_was_cut_off(finished, begun, cut_off, owner, name, call, after):
    workdir = begun("rlhf_v5_ppo")
    cut_off(workdir, "rlhf_v5_ppo", owner, name, call, after)
    run(workdir, until="rlhf_v5_ppo")
    assert_same_stage(workdir / "rlhf_v5_ppo", finished / "rlhf_v5_ppo")


def test_ppo_that_was_asked_to_stop(finished, begun, monkeypatch):
    """Within the third iteration, behind which no save is due: it is finished and saved all the same."""
    workdir, interruption, collect, calls = begun("rlhf_v5_ppo"), Interruption(), ppo.collect, []

    def asked(*arguments):
        calls.append(None)
        if len(calls) == 3:
            interruption.ask(signal.SIGTERM)
        return collect(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(ppo, "collect", asked)
        with pytest.raises(InterruptedRunError, match="rlhf_v5_ppo is saved after iteration 3 of 4"):
            recipe.run(shrink(rlhf_v5.get_config()), str(workdir), "rlhf_v5_ppo", interruption=interruption)
    assert len(calls) == 3
    # The best policy is of an earlier iteration: where it is damaged, an older one must not pass for it.
    shutil.copytree(workdir / "rlhf_v5_ppo", workdir / "whole")
    best = max((workdir / "rlhf_v5_ppo" / "checkpoints").iterdir(), key=lambda path: int(path.name))
    (best / "params" / "_METADATA").unlink()
    with pytest.raises(CheckpointError, match=f"the best policy so far, of iteration {best.name}, is missing from"):
        run(workdir, until="rlhf_v5_ppo")
    shutil.rmtree(workdir / "rlhf_v5_ppo")
    (workdir / "whole").rename(workdir / "rlhf_v5_ppo")
    run(workdir, until="rlhf_v5_ppo")
    assert_same_stage(workdir / "rlhf_v5_ppo", finished / "rlhf_v5_ppo")


def test_a_round_that_was_cut_off_between_sampling_and_fine_tuning(finished, begun, cut_off, monkeypatch):
    """From the end of a round on, and once more from the middle of the next one's last stage: to the same report."""
    workdir = begun("rlhf_v5_annotation")
    stage = "rlhf_v5_rejection_sampling"
    cut_off(workdir, stage, rejection_sampling, "finetune", 1)
    samples = (workdir / stage / "samples.jsonl").stat().st_mtime_ns
    with monkeypatch.context() as patched:
        patched.delattr(sampling, "generate")  # nothing is sampled twice
        run(workdir, until=stage)
    assert (workdir / stage / "samples.jsonl").stat().st_mtime_ns == samples
    run(workdir)
    for name in rlhf_v5.get_config().stages:
        if name != "report":
            assert_same_stage(workdir / name, finished / name)
    assert read_report(workdir) == read_report(finished)


def test_a_smaller_model_learns_from_the_best_samples_of_a_larger_one(finished, tmp_path):
    """One layer from two, up to PPO, which is as in the other runs; tests/experiments/test_distillation.py has more."""
    config = shrink(distillation.get_config())
    config.model.layers = 1
    config.teacher = str(finished)
    records = recipe.run(config, str(tmp_path), until="rlhf_v5_safety_reward")
    for number in range(1, 6):
        imported = tmp_path / f"teacher_rlhf_v{number}_rejection_sampling"
        teacher = finished / f"rlhf_v{number}_rejection_sampling"
        assert rows(imported / "bag.jsonl") == rows(teacher / "bag.jsonl")
        student = f"rlhf_v{number}_distillation"
        assert records[student]["results"]["dialogues"][imported.name] == len(rows(teacher / "bag.jsonl")) > 0
        assert (load_model(tmp_path / student).config.layers, load_model(teacher).config.layers) == (1, 2)
    compared = [row for n in range(1, 6) for row in rows(finished / f"rlhf_v{n}_annotation" / "comparisons.jsonl")]
    seen = records["rlhf_v5_safety_reward"]["results"]["comparisons"]
    assert seen["safety"] >= sum(row["domain"] == "safety" for row in compared) > 0


def test_reward_models_learn_from_parts_of_another_run_s_comparisons(finished, tmp_path):
    config = shrink(reward_scaling.get_config())
    config.source_run = str(finished)
    config.stages = tuple(name for name in config.stages if not ("_quarter" in name or "_half" in name))
    config.report.inputs.stages = config.stages[:-1]
    records = recipe.run(config, str(tmp_path))
    report = json.loads((tmp_path / "report" / "report.json").read_text())["reward_scaling"]
    for kind in ("helpfulness", "safety"):
        trained_on = [sum(row["comparisons"].values()) for row in report if row["kind"] == kind]
        assert 0 < trained_on[0] < trained_on[-1] and trained_on == sorted(trained_on)
        whole = json.loads((finished / f"rlhf_v5_{kind}_reward" / "stage.json").read_text())["results"]
        assert trained_on[-1] == sum(whole["comparisons"].values()), "of two domains, in a mix of its own"
        for name in ("pairs", "left_out"):
            assert records[f"{kind}_reward_all"]["results"][name] == whole[name]


def test_reward_models_learn_with_another_margin_and_without_the_auxiliary_loss(finished, tmp_path):
    config = shrink(reward_ablation.get_config())
    config.source_run = str(finished)
    records = recipe.run(config, str(tmp_path))
    report = json.loads((tmp_path / "report" / "report.json").read_text())["reward_ablation"]
    assert [row["stage"] for row in report] == [*reward_ablation.ABLATIONS]
    assert [row["margin"] for row in report[:3]] == ["none", "small", "large"]
    weights = [jax.tree.leaves(load_model(tmp_path / row["stage"]).params)[0] for row in report]
    assert all(not np.array_equal(weights[0], other) for other in weights[1:3])
    assert not np.array_equal(weights[3], weights[4])
    for row in report:
        own = json.loads((finished / f"rlhf_v5_{row['kind']}_reward" / "stage.json").read_text())["results"]
        assert records[row["stage"]]["results"]["pairs"] == own["pairs"], "the same test for all"


def test_the_fourth_version_on_the_last_round_s_answers_and_on_all(finished, tmp_path):
    config = shrink(bag_ablation.get_config())
    config.source_run = str(finished)
    records = recipe.run(config, str(tmp_path))
    fourth = finished / "rlhf_v4_rejection_sampling"
    for name, file in (("rlhf_v4_last_round", "samples.jsonl"), ("rlhf_v4_all_rounds", "bag.jsonl")):
        trained_on = records[name]["results"]["dialogues"]
        assert trained_on["rlhf_v4_rejection_sampling"] == len(rows(fourth / file)) > 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [row["name"] for row in report["versions"]] == [
        "sft", "rlhf_v3", "rlhf_v4_last_round", "rlhf_v4_all_rounds",
    ]  # fmt: skip
    assert all(row["helpfulness"] is not None for row in report["versions"])


def test_parts_of_another_run_s_safety_data_are_trained_on_beside_all_of_the_rest(finished, tmp_path):
    config = shrink(safety_scaling.get_config())
    config.source_run = str(finished)
    recipe.run(config, str(tmp_path))
    report = json.loads((tmp_path / "report" / "report.json").read_text())["safety_scaling"]
    assert [row["safety_fraction"] for row in report] == [0, 0.01, 0.1, 0.25, 0.5, 1]
    taken = [row["safety_data"]["safety"] for row in report]
    assert taken[0] == 0 < taken[-1] == report[0]["safety_data"]["safety_of"] and taken == sorted(taken)
    whole = json.loads((finished / "rlhf_v5_rejection_sampling" / "stage.json").read_text())["results"]["dialogues"]
    for row in report:
        assert row["safety_data"]["helpfulness"] == sum(whole.values()) - taken[-1]
        assert row["summary"]["rewards"]["safety"]["answers"] > 0


TWO_PROCESSES = """
import sys
from experiments import rlhf_v5
from llama2_jax import recipe
from llama2_jax.sharding.processes import join
from tests.smallest import shrink

join()
recipe.run(shrink(rlhf_v5.get_config()), sys.argv[1])
"""

# One stage of each kind (a rejection sampling fine-tunes too); the others are taken from the run of a single process.
RUN_BY_TWO = (
    "tokenizer", "pretrain", "rlhf_v1_annotation", "rlhf_v1_helpfulness_reward", "rlhf_v1_rejection_sampling",
    "rlhf_v3_ghost_attention", "rlhf_v5_context_distillation", "rlhf_v5_ppo", "evaluation", "report",
)  # fmt: skip


def test_two_processes_of_four_devices_do_what_one_of_eight_does(finished, tmp_path):
    workdir = tmp_path / "workdir"
    shutil.copytree(finished, workdir, ignore=lambda folder, names: RUN_BY_TWO if folder == str(finished) else ())
    with started(2, ["-c", TWO_PROCESSES, workdir], tmp_path) as run:
        assert run.wait(900) == [0, 0], run.texts()
    for name in RUN_BY_TWO:
        one, two = (json.loads((folder / name / "stage.json").read_text())["results"] for folder in (finished, workdir))
        assert_close(one, two, name)
        assert sorted(path.name for path in (finished / name).iterdir()) == sorted(
            path.name for path in (workdir / name).iterdir()
        )
    for name in ("pretrain", "rlhf_v1_helpfulness_reward", "rlhf_v5_ppo"):
        assert_close(rows(finished / name / "metrics.jsonl"), rows(workdir / name / "metrics.jsonl"), name)
    assert_close(read_report(finished), read_report(workdir), "report")


def assert_close(one, two, where):
    """The same but for sums over devices that are made in another order."""
    if isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for name in one:
            assert_close(one[name], two[name], f"{where}.{name}")
    elif isinstance(one, list):
        assert len(one) == len(two), where
        for number, pair in enumerate(zip(one, two, strict=True)):
            assert_close(*pair, f"{where}[{number}]")
    else:
        assert one == (pytest.approx(two, rel=1e-3, abs=1e-4) if isinstance(one, float) else two), where


PROGRAM = """
import sys
from experiments import pretrain
from llama2_jax import recipe
from llama2_jax.sharding.machine import enable_compilation_cache
from tests.smallest import shrink

config = shrink(pretrain.get_config())
config.pretrain.update({"steps": 40, "save_every": 4, "log_every": 1})
enable_compilation_cache(sys.argv[2])
recipe.run(config, sys.argv[1])
"""


def test_a_process_that_is_killed_again_and_again(tmp_path):
    """SIGKILL at two moments, the same command each time; the moments are random and hit steps and saves alike."""

    def start(workdir):
        root = pathlib.Path(__file__).parents[1]
        return subprocess.Popen([sys.executable, "-c", PROGRAM, workdir, tmp_path / "compiled"], cwd=root)

    assert start(tmp_path / "whole").wait(timeout=300) == 0
    draw, metrics = random.Random(0), tmp_path / "killed" / "pretrain" / "metrics.jsonl"
    killed_at = 0
    for _ in range(2):
        process, goal = start(tmp_path / "killed"), killed_at + draw.randint(5, 16)
        deadline = time.monotonic() + 300
        while killed_at < goal and process.poll() is None and time.monotonic() < deadline:
            killed_at = max(killed_at, len(metrics.read_text().splitlines()) if metrics.exists() else 0)
            time.sleep(draw.uniform(0, 0.01))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert start(tmp_path / "killed").wait(timeout=300) == 0
    assert [row["step"] for row in rows(metrics) if "loss" in row] == list(range(1, 41))
    assert [row["step"] for row in rows(metrics) if "held_out_loss" in row] == list(range(5, 41, 5))
    assert_same_stage(tmp_path / "killed" / "pretrain", tmp_path / "whole" / "pretrain")
