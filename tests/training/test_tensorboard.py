"""Event files are written without what their library can do besides."""

import importlib
import sys
import types

import pytest

from llama2_jax.training import tensorboard


def test_torch_is_hidden_from_the_library_and_stays_where_it_is_loaded(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with tensorboard._without_torch(), pytest.raises(ImportError):
        importlib.import_module("torch")
    assert "torch" not in sys.modules
    loaded = types.ModuleType("torch")
    monkeypatch.setitem(sys.modules, "torch", loaded)
    with tensorboard._without_torch():
        assert importlib.import_module("torch") is loaded
    assert sys.modules["torch"] is loaded
