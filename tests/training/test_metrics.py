"""Rows on disk at once, and none twice."""

import json

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from llama2_jax.training import metrics as metrics_file
from llama2_jax.training.metrics import MetricsWriter, read_metrics


def test_a_row_is_on_disk_when_write_returns(tmp_path):
    with MetricsWriter(tmp_path / "stage") as metrics:
        metrics.write(1, {"loss": 2.5})
        assert json.loads(metrics.path.read_text()) == {"step": 1, "loss": 2.5}
        metrics.write(2, {"loss": 2.0, "accuracy": 0.5})
    assert read_metrics(tmp_path / "stage" / "metrics.jsonl") == [
        {"step": 1, "loss": 2.5},
        {"step": 2, "loss": 2.0, "accuracy": 0.5},
    ]
    assert list((tmp_path / "stage" / "tensorboard").glob("events.out.*"))


def test_tensorboard_gets_the_values_and_is_told_what_to_hide(tmp_path):
    with MetricsWriter(tmp_path) as metrics:
        metrics.truncate_after(3)
        metrics.write(4, {"held_out/loss": 1.5})
    [file] = (tmp_path / "tensorboard").iterdir()
    events, data = [], file.read_bytes()
    while data:  # a record: its length in 8 bytes, a checksum, the event, a checksum
        size = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    assert events[0].file_version == "brain.Event:2"
    assert (events[1].step, events[1].session_log.status) == (4, SessionLog.START)
    [value] = events[2].summary.value
    assert (events[2].step, value.tag, value.simple_value) == (4, "held_out/loss", 1.5)
    assert len(events) == 3


def test_rows_after_a_checkpoint_are_dropped_and_written_again(tmp_path):
    metrics = MetricsWriter(tmp_path)
    for step in (1, 2, 3, 3, 4):
        metrics.write(step, {"loss": step})
    metrics.truncate_after(3)
    metrics.write(4, {"loss": 40})
    metrics.close()
    assert [(row["step"], row["loss"]) for row in read_metrics(metrics.path)] == [
        (1, 1),
        (2, 2),
        (3, 3),
        (3, 3),
        (4, 40),
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl", "tensorboard"}


def test_a_row_that_was_cut_off_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    MetricsWriter(tmp_path).truncate_after(5)
    assert path.read_text() == '{"step": 1, "loss": 1.0}\n'


def test_a_broken_row_elsewhere_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl:2: not a JSON row: 'nonsense"):
        read_metrics(path)


def test_truncating_nothing_is_fine(tmp_path):
    MetricsWriter(tmp_path / "absent").truncate_after(0)
    assert not (tmp_path / "absent").exists()


def test_in_a_store_that_can_not_append_rows_are_kept_with_each_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics_file, "_can_append", lambda path: False)

    def steps():
        return [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")]

    with MetricsWriter(tmp_path) as metrics:
        for step in (1, 2):
            metrics.write(step, {"loss": step})
        metrics.flush()
        assert steps() == [1, 2]
        metrics.write(3, {"loss": 3})
    assert steps() == [1, 2, 3]
    with MetricsWriter(tmp_path) as metrics:
        metrics.truncate_after(2)
        metrics.write(3, {"loss": 30})
        metrics.write(4, {"loss": 4})
    assert steps() == [1, 2, 3, 4]
    assert read_metrics(tmp_path / "metrics.jsonl")[2]["loss"] == 30
