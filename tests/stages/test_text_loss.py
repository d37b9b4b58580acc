"""The loss on held-out text of several models, on the same batches."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from llama2_jax.inference.score import target_log_probabilities
from llama2_jax.pipeline import encoding
from llama2_jax.stages import text_loss
from llama2_jax.training.model_folder import load_model
from tests.random_model import random_arrays, train_like
from tests.smallest import Letters, smallest_model, smallest_runtime

MODEL = smallest_model()


def texts(*, seed, count, letter):
    """Short documents: a row has room for them. The last one alone is held out; it is of other letters."""
    del seed
    return [{"text": letter * 20} for _ in range(count - 1)] + [{"text": "the end of all"}]


@pytest.fixture
def measure(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda path: Letters())
    for seed, name in enumerate(("one", "other")):
        train_like(tmp_path / name, MODEL, random_arrays(MODEL, seed=seed))

    def run(**changes):
        runtime = smallest_runtime(tmp_path)
        source = {"function": f"{__name__}.texts", "format": "text", "arguments": {"count": 5, "letter": "x"}}
        config = ConfigDict({
            "versions": ("one", "other"), "sources": {"made": source}, "length": 16, "batch_size": 2,
            "held_out_batches": 1, **changes,
        })  # fmt: skip
        run.config, run.runtime = config, runtime
        models = tuple(runtime.folder / name for name in ("one", "other"))
        return text_loss.run(config, {"tokenizer": runtime.folder, "models": models}, runtime)["text_loss"]

    return run


@pytest.mark.slow
def test_it_is_the_mean_over_the_tokens_of_what_was_held_out(measure, tmp_path):
    rows = measure()
    assert [row["version"] for row in rows] == ["one", "other"]
    ids = [1, *map(ord, "the end of all"), 2]
    assert len(ids) == 16, "a row is the document"
    for row in rows:
        params = load_model(tmp_path / row["version"]).params
        (logp,) = target_log_probabilities(MODEL, params, [ids[:-1]], [ids[1:]])
        assert row["held_out_loss"] == pytest.approx(-np.mean(logp), rel=1e-5)
    assert rows[0]["held_out_loss"] != rows[1]["held_out_loss"]


def test_what_would_measure_nothing_is_refused():
    config = ConfigDict({"held_out_batches": 0, "sources": {"a": {}}})
    with pytest.raises(ValueError, match="held_out_batches=0: wanted at least 1"):
        text_loss.check(config, {}, len)


@pytest.mark.slow
def test_it_is_sized_by_the_program_that_runs(measure):
    measure()
    (program,) = text_loss.device_work(measure.config, MODEL, measure.runtime.mesh).programs
    loss, params, batch = program.compile.args
    assert jax.tree.map(lambda leaf: leaf.shape, batch)["tokens"] == (2, 16)
    assert program.uses[0].name == "version" and callable(loss) and params
