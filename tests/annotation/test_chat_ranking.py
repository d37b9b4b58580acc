"""A language model ranks answers, shown in two orders and read strictly, whatever it says."""

import json

import pytest

from llama2_jax.annotation.chat_ranking import rank, read_ranks
from llama2_jax.annotation.strict_answers import UnreadableAnswer
from llama2_jax.pipeline.labels import check_ranks
from tests.chat_server import ChatServer


def shown(messages):
    return json.loads(messages[1]["content"])["responses"]


def said(ranks):
    return json.dumps({"ranks": ranks})


def longest_first(messages):
    sizes = [len(response) for response in shown(messages)]
    return said([1 + sum(other > size for other in sizes) for size in sizes])


def row(*responses, domain="helpfulness"):
    return {"messages": [{"role": "user", "content": "Hello?"}], "responses": list(responses), "domain": domain}


@pytest.fixture
def ranked(monkeypatch, tmp_path):
    """Rankings by a model that answers so, and what it was asked."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def ranked(answer, *rows, **settings):
        with ChatServer(answer) as server:
            settings = {"key_variable": "", "cache": str(tmp_path / "cache"), **settings}
            found = rank(rows, chat={"base_url": server.address, "model": "judge", **settings})
            check_ranks(found, [len(row["responses"]) for row in rows], "the judge")
            return found, server.requests

    return ranked


def test_answers_are_ranked_whatever_their_order(ranked):
    found, requests = ranked(longest_first, row("aa", "aaaa", "a", "aaa"), row("b", "bb"), row("bb", "b"))
    assert [one["ranks"] for one in found] == [[3, 1, 4, 2], [2, 1], [1, 2]]
    assert found[0]["by_order"] == [[3, 1, 4, 2], [3, 1, 4, 2]], "by answer, not by place"
    assert len(requests) == 4, "the third row's two orders are the second's"
    asked = [shown(request["messages"]) for request in requests]
    assert ["aa", "aaaa", "a", "aaa"] in asked and ["aaa", "a", "aaaa", "aa"] in asked


def test_ties_stay_ties(ranked):
    (found,), _ = ranked(longest_first, row("aa", "a", "bb"))
    assert found["ranks"] == [1, 3, 1]


def test_a_model_that_goes_by_position_alone_ties_all(ranked):
    (found,), _ = ranked(lambda messages: said([1, 2, 3]), row("a", "b", "c"))
    assert found == {"ranks": [1, 1, 1], "by_order": [[1, 2, 3], [3, 2, 1]]}


def test_what_only_one_order_says_is_a_half(ranked):
    """The first order ranks a, b, c; the reverse one, read by answer, b, a, c: a and b share the first rank."""

    def answer(messages):
        return said([1, 2, 3] if shown(messages) == ["a", "b", "c"] else [3, 1, 2])

    (found,), _ = ranked(answer, row("a", "b", "c"))
    assert found == {"ranks": [1, 1, 3], "by_order": [[1, 2, 3], [2, 1, 3]]}


def test_each_domain_has_its_guideline(ranked):
    _, requests = ranked(longest_first, row("a", "b"), row("a", "b", domain="safety"))
    systems = {request["messages"][0]["content"] for request in requests}
    assert sum("unqualified medical" in system for system in systems) == 1 and len(systems) == 2
    assert all("rank 2 responses" in system for system in systems)


def test_what_cannot_be_read_is_asked_for_once_more_and_then_decides_nothing(ranked):
    def answer(messages):
        if shown(messages)[0] == "a" and len(messages) == 2:
            return "The first one."
        return longest_first(messages) if shown(messages)[0] == "a" else said([1])

    (found,), requests = ranked(answer, row("a", "bb"))
    assert found == {"ranks": [1, 1], "by_order": [[2, 1], None]} and len(requests) == 4
    assert any("ranks is [1] and no list of 2 numbers" in r["messages"][-1]["content"] for r in requests)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("first", "no JSON"),
        ("[1, 2]", "no JSON object"),
        ("{}", "ranks is None and no list of 2"),
        (said([1, 2, 3]), r"ranks is \[1, 2, 3\] and no list of 2"),
        (said([0, 1]), "ranks has 0, which is no whole number from 1 to 2"),
        (said([1, 3]), "ranks has 3"),
        (said([1, 1.5]), "ranks has 1.5"),
        (said([True, 2]), "ranks has True"),
    ],
)
def test_strict_reading(answer, message):
    with pytest.raises(UnreadableAnswer, match=message):
        read_ranks(answer, 2)


def test_a_code_block_around_the_object_is_no_matter():
    assert read_ranks("```json\n" + said([2, 1]) + "\n```", 2) == [2, 1]
