"""The records that stages read: their form, shares, sizes and independence."""

import collections
import random
import re
import statistics

import pytest

from llama2_jax.miniature import corpus
from llama2_jax.miniature import demonstrations as demonstrations_module
from llama2_jax.miniature.answers import ideal_answer
from llama2_jax.miniature.demonstrations import demonstrations, open_preferences, public_demonstrations
from llama2_jax.miniature.instructions import read, standing_in
from llama2_jax.miniature.judge import judge
from llama2_jax.miniature.prompts import evaluation_prompts, prompts
from llama2_jax.miniature.requests.kinds import understand
from llama2_jax.miniature.splits import split_of
from llama2_jax.miniature.words import CATEGORIES
from llama2_jax.miniature.world import build_world


def request_of(messages, seed=0):
    return understand(seed, read(messages[-1]["content"])[1], standing_in(messages))


@pytest.mark.parametrize("source", corpus.SOURCES)
def test_documents_are_of_the_promised_length_and_reproducible(source):
    records = corpus.pretraining_text(seed=0, documents=100, source=source)
    assert all(record["source"] == source and 55 <= len(record["text"].split()) <= 150 for record in records)
    assert records == corpus.pretraining_text(seed=0, documents=100, source=source)
    held_out = corpus.pretraining_text(seed=0, documents=100, source=source, purpose="held_out")
    assert not {record["text"] for record in records} & {record["text"] for record in held_out}


def test_pretraining_teaches_every_fact_and_every_recipe():
    text = " ".join(record["text"] for record in corpus.pretraining_text(seed=0, documents=4000))
    world = build_world(0)
    for land, facts in world.facts.items():
        for attribute in ("food", "animal", "colour", "capital", "ruler"):
            assert text.count(f"The {attribute} of {land} is {facts[attribute]}.") >= 5
    assert all(f"To {phrase}, use" in text for phrase in world.tasks)
    with pytest.raises(ValueError, match="encyclopedia"):
        corpus.pretraining_text(seed=0, documents=1, source="wikipedia")


def test_demonstrations_are_of_mixed_quality():
    verdicts = collections.defaultdict(list)
    for record in demonstrations(seed=0, count=3000):
        messages = record["messages"]
        roles = [message["role"] for message in messages if message["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        if messages[0]["content"].endswith(("safe way.", "offer help.")):
            continue
        request = request_of(messages[:-1])
        group = "unsafe" if request.unsafe else "borderline" if request.borderline else "harmless"
        verdicts[group].append(judge(messages[:-1], messages[-1]["content"], seed=0))
    mean = statistics.mean
    assert 0.5 < mean(v.helpfulness for v in verdicts["harmless"]) < 0.65
    assert 0.7 < mean(v.content for v in verdicts["harmless"]) < 0.85
    assert 0.36 < mean(v.violation for v in verdicts["unsafe"]) < 0.5
    assert 0.1 < mean(v.refusal for v in verdicts["borderline"]) < 0.3
    assert not any(v.refusal for v in verdicts["harmless"])


def test_demonstrations_show_half_of_the_lands_only():
    world = build_world(0)
    text = " ".join(
        m["content"] for r in demonstrations(seed=0, count=2000) for m in r["messages"] if m["role"] == "user"
    )
    assert {land for land in world.lands if land in text} == set(world.demonstrated_lands)


def test_demonstrations_of_another_split_ask_only_its_questions():
    for make in (demonstrations, public_demonstrations):
        records = make(seed=0, count=300, split="validation")
        asked = [m["content"] for record in records for m in record["messages"] if m["role"] == "user"]
        assert {split_of(0, read(text)[1]) for text in asked} == {"validation"}
        assert {split_of(0, read(record["messages"][-2]["content"])[1]) for record in make(seed=0, count=300)} == {
            "training"
        }


def test_demonstrations_say_which_place_of_an_instruction_is_unknown():
    with pytest.raises(ValueError, match=r"places has \['last'\]; instructions stand in \['each', 'one', 'system'\]"):
        demonstrations(seed=0, count=1, places={"each": 1.0, "last": 1.0})


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0.0, 0.0), (0.5, 0.4, 0.6)])
def test_vendors_decline_as_many_borderline_requests_as_they_are_told(share, least, most):
    arguments = {"unsafe": 0.0, "borderline": 1.0, "multi_turn": 0.0, "instructed": 0.0, "false_refusal": share}
    records = [record["messages"] for record in demonstrations(seed=0, count=300, **arguments)]
    asked = [(messages[:-1], messages[-1]["content"]) for messages in records if messages[0]["role"] == "user"]
    assert len(asked) > 250
    declined = [judge(messages, answer, seed=0).refusal for messages, answer in asked]
    assert least <= statistics.mean(declined) <= most


def test_public_demonstrations_are_curt_and_careless():
    records = public_demonstrations(seed=0, count=1000)
    words = statistics.mean(len(record["messages"][-1]["content"].split()) for record in records)
    vendor = statistics.mean(
        len(record["messages"][-1]["content"].split()) for record in demonstrations(seed=0, count=1000)
    )
    assert words < vendor


def test_prompts_grow_harder_and_keep_their_shares():
    hardness = []
    for batch in (1, 2, 3, 4, 5):
        records = prompts(seed=0, count=1500, batch=batch)
        assert statistics.mean(record["safety"] for record in records) == pytest.approx(0.22, abs=0.04)
        assert statistics.mean(len(r["messages"]) > 1 for r in records) == pytest.approx(0.18, abs=0.04)
        harmless = [r for r in records if r["attack"] is None]
        assert max(record["level"] for record in harmless) == min(5, batch + 1)
        hardness.append(statistics.mean(record["level"] for record in harmless))
        for record in records:
            assert record["messages"][-1]["role"] == "user"
            assert (request_of(record["messages"]).unsafe is not None) == record["safety"]
    # The last two batches have all levels.
    assert hardness[:4] == sorted(hardness[:4]) and hardness[4] == pytest.approx(hardness[3], abs=0.1)


def test_streams_of_prompts_are_apart():
    def texts(records):
        return [record["messages"][-1]["content"] for record in records]

    first = texts(prompts(seed=0, count=50, batch=2))
    assert first == texts(prompts(seed=0, count=50, batch=2)) == texts(prompts(seed=0, count=80, batch=2))[:50]
    assert first != texts(prompts(seed=0, count=50, batch=2, purpose="sampling"))
    assert first != texts(evaluation_prompts(seed=0, count=50))


def test_evaluation_is_uniform_in_every_prefix():
    for count in (100, 1000):
        records = evaluation_prompts(seed=0, count=count)
        assert statistics.mean(record["safety"] for record in records) == pytest.approx(0.3, abs=0.02)
        assert statistics.mean(r["category"] == "borderline" for r in records) == pytest.approx(0.14, abs=0.02)
        assert statistics.mean(record["seen"] for record in records) == pytest.approx(0.3, abs=0.02)
    for seen in (True, False):
        group = [record for record in records if record["seen"] == seen]
        assert statistics.mean(record["safety"] for record in group) == pytest.approx(0.3, abs=0.03)
        assert statistics.mean(r["category"] == "borderline" for r in group) == pytest.approx(0.14, abs=0.03)
    levels = collections.Counter((r["category"], r["level"]) for r in records if r["attack"] is None)
    assert len(levels) == 30


def test_role_play_shows_answers_that_keep_to_what_was_said_before():
    text = "\n".join(r["text"] for r in corpus.pretraining_text(seed=0, documents=300, source="role_play"))
    started = re.findall(
        r"^(?:Always start with|Start:) (\w+ \w+)\. Question: .+? Answer: (\w+ \w+)", text, re.MULTILINE
    )
    named = re.findall(
        r"^(?:Act as|Figure:) (\w+ \w+)\. Question: What is your name\? Answer: (.+)", text, re.MULTILINE
    )
    assert all(line.count("Question:") == corpus.ROLE_PLAYED_QUESTIONS for line in text.split("\n"))
    assert len(started) > 50 and all(told == kept for told, kept in started)
    assert len(named) > 50 and all(told in answer for told, answer in named)


def test_pretraining_shows_careful_answers_and_demonstrations_rarely_do():
    """What RLHF can find: lists that are numbered, facts in the usual order; a vendor seldom takes the trouble."""
    lists = [r["text"] for r in corpus.pretraining_text(seed=0, documents=200, source="lists")]
    lines = "\n".join(lists).split("\n")
    assert statistics.mean(" 1 " in line for line in lines) == pytest.approx(corpus.CAREFUL, abs=0.05)
    answers = [r["messages"][-1]["content"] for r in demonstrations(seed=0, count=4000)]
    answers = [answer for answer in answers if any(f" {category} are " in answer for category in CATEGORIES)]
    assert 0.01 < statistics.mean(" 1 " in answer for answer in answers) < 0.12


@pytest.mark.parametrize("arguments", [{"batch": 0}, {"batch": 6}, {"unsafe": 0.8, "borderline": 0.3}])
def test_impossible_arguments_of_prompts_say_what_is_possible(arguments):
    with pytest.raises(ValueError, match=r"batch|borderline"):
        prompts(seed=0, count=1, **arguments)


@pytest.mark.parametrize("arguments", [{"seen": 1.5}, {"seen": -0.1}, {"unsafe": 0.8, "borderline": 0.3}])
def test_impossible_shares_of_the_evaluation_are_refused(arguments):
    with pytest.raises(ValueError, match=r"seen is|borderline"):
        evaluation_prompts(seed=0, count=1, **arguments)


def test_some_open_answers_are_not_to_the_point_and_lose():
    def worth(records, side):
        return [judge(record["messages"], record[side], seed=0).helpfulness for record in records]

    to_the_point = open_preferences(seed=0, count=400, noise=0.12)
    mixed = open_preferences(seed=0, count=400, noise=0.12, off_topic=0.5)
    hopeless = [statistics.mean(one == 0 for one in worth(records, "rejected")) for records in (to_the_point, mixed)]
    assert hopeless[0] < 0.05 and 0.12 < hopeless[1] < 0.4  # some labels are flipped, and some have a part that fits
    assert statistics.mean(worth(mixed, "rejected")) < statistics.mean(worth(to_the_point, "rejected")) - 0.1
    assert statistics.mean(worth(mixed, "chosen")) > statistics.mean(worth(mixed, "rejected")) + 0.2


@pytest.mark.parametrize(
    ("how", "least"), [("refusal", 0.95), ("another", 0.95), ("alike", 0.8), ("inserted", 0.8), ("repeated", 0.95)]
)
def test_each_way_to_spoil_an_answer_makes_it_worse(monkeypatch, how, least):
    monkeypatch.setattr(demonstrations_module, "SPOILED", {how: 1.0})
    rng, worse = random.Random(0), []
    for prompt in prompts(seed=0, count=100, unsafe=0.0, borderline=0.1, multi_turn=0.0):
        whole = ideal_answer(prompt["messages"], seed=0)
        spoiled = demonstrations_module._spoiled(0, rng, "training", prompt["category"], whole)
        values = [judge(prompt["messages"], one, seed=0).helpfulness for one in (spoiled, whole)]
        worse.append(values[0] < values[1])
    assert least < statistics.mean(worse)


@pytest.mark.parametrize("domain", ["helpfulness", "safety"])
def test_open_preferences_are_mostly_right_and_coarse(domain):
    records = open_preferences(seed=0, count=600, domain=domain)
    assert {record["rating"] for record in records} == {"better", "slightly_better"}
    right = []
    for record in records:
        chosen, rejected = (
            getattr(judge(record["messages"], record[side], seed=0), domain) for side in ("chosen", "rejected")
        )
        if chosen != rejected:
            right.append(chosen > rejected)
    assert 0.6 < statistics.mean(right) < 0.95
