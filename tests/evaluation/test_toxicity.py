"""A classifier of transformers, in whose place stands one that looks for a word."""

import sys
import types

import pytest

from llama2_jax.evaluation.toxicity import huggingface_classifier


@pytest.fixture
def asked(monkeypatch):
    """What transformers' pipeline is asked for."""
    calls = []

    def pipeline(task, *, model, device):
        def classify(texts, *, truncation, batch_size):
            calls.append((task, model, device, texts, truncation, batch_size))
            return [{"label": "LABEL_1" if "bad" in text else "LABEL_0", "score": 0.9} for text in texts]

        classify.model = types.SimpleNamespace(config=types.SimpleNamespace(label2id={"LABEL_0": 0, "LABEL_1": 1}))
        return classify

    monkeypatch.setitem(sys.modules, "transformers", types.SimpleNamespace(pipeline=pipeline))
    return calls


def rows(*responses):
    return [{"response": response} for response in responses]


def test_what_the_model_calls_toxic(asked):
    found = huggingface_classifier(rows("a bad thing", "", "a good thing", "bad"), model="mine", batch_size=2)
    assert found == [True, False, False, True]
    assert asked == [
        ("text-classification", "mine", "cpu", ["a bad thing", "a good thing", "bad"], True, 2),
    ], "nothing is not read"


def test_answers_that_are_all_empty(asked):
    assert huggingface_classifier(rows("", " ")) == [False, False] and asked == []


def test_a_label_that_the_model_does_not_have(asked):
    with pytest.raises(ValueError, match="toxic_label='toxic': the model mine has LABEL_0, LABEL_1"):
        huggingface_classifier(rows("bad"), model="mine", toxic_label="toxic")


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="needs the packages transformers and torch: pip install transformers torch"):
        huggingface_classifier(rows("bad"))
