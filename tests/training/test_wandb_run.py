"""Metrics on W&B: what is sent, that a resumed stage goes on with its run, and that nothing there stops a training."""

import sys
import types

import pytest
from absl import logging

from llama2_jax.training.metrics import MetricsWriter, read_metrics
from llama2_jax.training.wandb_run import import_wandb


class Service:
    """Stands in for the package: keeps what runs are begun with and what they log."""

    def __init__(self):
        self.begun, self.rows, self.finished = [], [], 0

    def init(self, **settings):
        self.begun.append(settings)
        return self

    def log(self, values, step):
        self.rows.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture
def service(monkeypatch):
    service = Service()
    monkeypatch.setitem(sys.modules, "wandb", service)
    return service


def test_rows_go_to_a_run_with_the_stage_s_name(service, tmp_path):
    with MetricsWriter(tmp_path / "runs" / "sft", "my-project") as metrics:
        assert not service.begun, "a stage without rows has no run"
        metrics.write(1, {"loss": 2})
        metrics.write(2, {"loss": 1.5})
    (settings,) = service.begun
    assert settings["project"] == "my-project" and settings["name"] == "runs/sft" and settings["group"] == "runs"
    assert service.rows == [(1, {"loss": 2.0}), (2, {"loss": 1.5})] and service.finished == 1


def test_a_resumed_stage_goes_on_with_its_run_and_another_has_its_own(service, tmp_path):
    for folder in ("one", "one", "other"):
        with MetricsWriter(tmp_path / folder, "p") as metrics:
            metrics.truncate_after(0)
            metrics.write(1, {"loss": 2})
    one, again, other = (settings["id"] for settings in service.begun)
    assert one == again != other and {settings["resume"] for settings in service.begun} == {"allow"}


def test_what_w_and_b_cannot_take_is_warned_about_once_and_stays_on_disk(service, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(logging, "warning", lambda *message: warnings.append(message))
    monkeypatch.setattr(service, "init", lambda **_: (_ for _ in ()).throw(OSError("no network")))
    with MetricsWriter(tmp_path, "p") as metrics:
        for step in (1, 2, 3):
            metrics.write(step, {"loss": step})
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert len(warnings) == 1 and "no network" in str(warnings[0][1])


def test_without_a_project_nothing_is_imported(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with MetricsWriter(tmp_path) as metrics:
        metrics.write(1, {"loss": 1})
    with pytest.raises(ValueError, match=r"needs the package wandb: pip install -e '.\[wandb\]'"):
        import_wandb()


def test_the_package_itself_takes_what_is_sent(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    assert isinstance(wandb, types.ModuleType)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with MetricsWriter(tmp_path / "runs" / "sft", "p") as metrics:
        metrics.write(1, {"loss": 2})
    assert metrics._wandb._works and list((tmp_path / "runs" / "sft").rglob("*.wandb"))
