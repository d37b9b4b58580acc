"""A teacher behind an address: its texts come back in order, and are paid for once."""

import pytest

from llama2_jax.annotation.chat_client import BudgetError
from llama2_jax.annotation.completions import complete
from tests.chat_server import ChatServer


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001, raising=False)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.001, raising=False)
    with ChatServer(lambda messages: f"{messages[-1]['content']} and on") as server:
        yield server


def chat(server, tmp_path, **changes):
    return {"base_url": server.address, "model": "teacher", "key_variable": "", "cache": str(tmp_path), **changes}


def test_texts_in_order_through_failures(server, tmp_path):
    server.faults = [500, 429, 0]
    prompts = [f"list {number}" for number in range(12)]
    answers = complete(prompts, chat=chat(server, tmp_path, temperature=1.0))
    assert answers == [{"text": f"{prompt} and on", "finished": False} for prompt in prompts]
    assert {body["temperature"] for body in server.requests} == {1.0}
    assert [len(body["messages"]) for body in server.requests] == [1] * 14


def test_a_refusal_is_an_empty_text(server, tmp_path):
    server.answer = lambda messages: None
    assert complete(["a"], chat=chat(server, tmp_path)) == [{"text": "", "finished": False}]


def test_a_budget_that_is_spent_loses_nothing(server, tmp_path):
    with pytest.raises(BudgetError, match="raise the budget and start again"):
        complete(["a", "b", "c"], chat=chat(server, tmp_path, budget=2, at_once=1))
    assert len(server.requests) == 2
    assert [row["text"] for row in complete(["a", "b", "c"], chat=chat(server, tmp_path, budget=3))] == [
        "a and on", "b and on", "c and on",
    ]  # fmt: skip
    assert len(server.requests) == 3


def test_an_unknown_field(server, tmp_path):
    with pytest.raises(ValueError, match="chat has no field retrys"):
        complete(["a"], chat=chat(server, tmp_path, retrys=1))
