"""Answers are kept and paid for once, whatever the server does."""

import threading

import pytest

from llama2_jax.annotation.chat_client import BudgetError, ChatClient, ChatError, ChatModel, chat_model
from tests.chat_server import ChatServer


def question(text):
    return [{"role": "user", "content": text}]


@pytest.fixture
def server(monkeypatch):
    """A model that repeats what it is asked; retries wait for nothing."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001, raising=False)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.001, raising=False)
    with ChatServer(lambda messages: f"You said {messages[-1]['content']}.") as server:
        yield server


@pytest.fixture
def client(server, tmp_path):
    """Makes clients of one cache."""

    def make(**settings):
        settings = {"key_variable": "", "cache": str(tmp_path / "cache"), **settings}
        return ChatClient(ChatModel(server.address, "judge", **settings))

    return make


def test_what_was_asked_once_is_not_asked_again(server, client):
    assert [client().ask(question("a")) for _ in range(3)] == ["You said a."] * 3
    assert len(server.requests) == 1
    assert server.requests[0] == {"model": "judge", "messages": question("a"), "temperature": 0.0, "max_tokens": 512}
    client(temperature=0.5).ask(question("a"))
    assert len(server.requests) == 2, "asked for another way it is another question"


def test_two_who_ask_the_same_at_once_are_answered_once(server, client):
    asked, release = client(at_once=4), threading.Event()
    server.answer = lambda messages: release.wait(5) and "yes"
    threading.Timer(0.2, release.set).start()
    assert asked.each(lambda text: asked.ask(question(text)), ["a"] * 4) == ["yes"] * 4
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", [429, 500, 503, 3.0], ids=["rate", "failure", "overload", "late"])
def test_a_request_that_is_refused_or_lost_is_sent_again(server, client, fault):
    server.faults = [fault, fault]
    assert client(timeout=1.0).ask(question("a")) == "You said a."
    assert len(server.requests) == 3


@pytest.mark.parametrize("fault", [429, 3.0])
def test_after_all_retries_it_is_said_and_what_was_answered_stays(server, client, fault):
    asked = client(timeout=1.0, retries=1, at_once=1)
    asked.ask(question("a"))
    server.faults = [fault] * 2
    with pytest.raises(ChatError, match=r"http://127.*, model judge: "):
        asked.each(lambda text: asked.ask(question(text)), ["a", "b", "c"])
    server.requests.clear()
    again = client()
    assert again.each(lambda text: again.ask(question(text)), ["a", "b"]) == ["You said a.", "You said b."]
    assert [request["messages"] for request in server.requests] == [question("b")]


def test_the_budget_counts_answers_over_all_runs(server, client):
    first = client(budget=3)
    for text in "abc":
        first.ask(question(text))
    assert first.ask(question("a")) == "You said a.", "what is kept costs nothing"
    with pytest.raises(BudgetError, match=r"3 answers of a budget of 3 are in .*; raise the budget and start again"):
        client(budget=3).ask(question("d"))
    assert len(server.requests) == 3
    assert client(budget=4).ask(question("d")) == "You said d."


def test_a_request_that_fails_does_not_use_up_the_budget(server, client):
    asked = client(budget=1, retries=0)
    server.faults = [500]
    with pytest.raises(ChatError):
        asked.ask(question("a"))
    assert asked.ask(question("a")) == "You said a."


def test_the_key_is_from_the_environment_and_is_written_nowhere(server, client, monkeypatch, tmp_path):
    with pytest.raises(
        ValueError, match="the environment variable JUDGE_KEY has no key; set it, or give key_variable=''"
    ):
        client(key_variable="JUDGE_KEY")
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    asked = client(key_variable="JUDGE_KEY")
    asked.ask(question("a"))
    assert server.keys == ["Bearer sk-secret"]
    server.faults = [401]
    with pytest.raises(ChatError) as caught:
        asked.ask(question("b"))
    assert "Bearer ***" in str(caught.value) and "sk-secret" not in str(caught.value)
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 1 and "sk-secret" not in written[0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "m"}, "chat lacks the field base_url, such as http://127.0.0.1:8000/v1"),
        ({"base_url": "", "model": "m"}, "chat.base_url is empty; wanted one such as http://127.0.0.1:8000/v1"),
        ({"base_url": "u", "model": "m", "key": "sk"}, "chat has no field key; its fields are base_url, model, cache"),
        ({"base_url": "u", "model": "m", "budget": "many"}, "chat.budget is 'many'; wanted int"),
        ({"base_url": "u", "model": "m", "timeout": True}, "chat.timeout is True; wanted float"),
    ],
)
def test_wrong_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        chat_model(fields)


def test_a_refusal_is_an_empty_answer(server, client):
    server.answer = lambda messages: None
    assert client().ask(question("a")) == ""


def test_an_address_where_nobody_is(client, server):
    asked = client(retries=0)
    server.__exit__()
    with pytest.raises(ChatError, match="Connection error"):
        asked.ask(question("a"))
