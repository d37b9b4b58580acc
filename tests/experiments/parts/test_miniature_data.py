"""What is held out and what evaluates asks nothing that any stage of the miniature's recipe trains on."""

import json
import re

import pytest
from ml_collections import ConfigDict

from experiments import rlhf_v5
from llama2_jax.data.sources import read
from llama2_jax.miniature.instructions import read as without_instructions
from llama2_jax.miniature.instructions import standing_in
from llama2_jax.miniature.judge import judge
from llama2_jax.miniature.requests.identity import QUESTIONS
from llama2_jax.miniature.splits import split_of

# Enough that, before questions were split, two thirds of those held out occurred.
RECORDS, DOCUMENTS = 300, 100


def sources_of(config):
    """All sources of all stages: (where, description)."""

    def walk(where, part):
        for name, value in part.items():
            if isinstance(value, ConfigDict) and "format" in value:
                yield f"{where}.{name}", value.to_dict()
            elif isinstance(value, ConfigDict):
                yield from walk(f"{where}.{name}", value)

    for stage in config.stages:
        yield from walk(stage, config[stage])


def trains(where, config):
    return not re.search("held_out|test_preferences", where) and config[where.partition(".")[0]].role != "evaluation"


def records_of(source, seed):
    arguments = source["arguments"]
    fewer = {name: min(arguments[name], most) for name, most in (("count", RECORDS), ("documents", DOCUMENTS))
             if name in arguments}  # fmt: skip
    return read({**source, "arguments": {**arguments, **fewer}}, "", seed)


def said(record):
    """What a model reads of a record besides answers: what users say, and standing instructions."""
    told = [m["content"] for m in record.get("messages", ()) if m["role"] == "system"]
    return [*said_by_users(record), *told, record.get("instruction", ""), record.get("terse", "")]


def said_by_users(record):
    return [m["content"] for m in record.get("messages", ()) if m["role"] == "user"] + record.get("turns", [])


def questions_of(record):
    return [without_instructions(text)[1] for text in said_by_users(record)]


def everything_trained_on(config, seed):
    """The questions, and all texts in which a question may stand."""
    described = {json.dumps(source, sort_keys=True): source for where, source in sources_of(config)
                 if trains(where, config)}  # fmt: skip
    assert len(described) > 25
    records = [record for source in described.values() for record in records_of(source, seed)]
    texts = [text for record in records for text in (*said(record), record.get("text", ""))]
    return {question for record in records for question in questions_of(record)}, "\n".join(texts)


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_no_unseen_question_occurs_in_what_any_stage_trains_on(seed):
    config = rlhf_v5.get_config("tiny")
    asked, texts = everything_trained_on(config, seed)
    apart = [(where, source) for where, source in sources_of(config) if not trains(where, config)]
    assert {where.split(".")[1] for where, _ in apart} == {
        "held_out", "held_out_prompts", "prompts", "instruction_dialogues", "test_preferences",
    }  # fmt: skip
    for where, source in apart:
        records = records_of(source, seed)
        if where.startswith("evaluation.prompts"):
            seen = [questions_of(record)[-1] for record in records if record["seen"]]
            unseen = {questions_of(record)[-1] for record in records if not record["seen"]}
            assert len(seen) / len(records) == pytest.approx(source["arguments"]["seen"], abs=0.01)
            # Of numbers there are too many for each to come.
            assert sum(question in asked for question in seen) > 0.6 * len(seen)
            assert {split_of(seed, question) for question in seen} == {"training"}
        elif "prompts" in where:  # earlier turns are the dialogue's past, and are asked in training too
            unseen = {questions_of(record)[-1] for record in records}
        else:
            unseen = {question for record in records for question in questions_of(record)}
        if where.startswith("evaluation.instruction_dialogues"):
            known = where.endswith("known_instructions")
            told = {value for record in records for value in vars(standing_in(record["messages"])).values() if value}
            assert {record["seen"] for record in records} == {known} and len(told) > 3
            assert {value in texts for value in told} == {known}, "training has known instructions, and no new one"
            assert set(QUESTIONS.values()) < unseen
            unseen -= set(QUESTIONS.values())
        assert unseen and not unseen & asked, where
        assert not [question for question in unseen if question in texts], where


@pytest.mark.parametrize("seed", [0, 5])
def test_demonstrations_beside_the_best_answers_do_no_harm_and_heed_instructions(seed):
    config = rlhf_v5.get_config("tiny")
    demonstrated = [config[f"rlhf_v{number}_rejection_sampling"].sources.to_dict() for number in range(1, 6)]
    # The third version is the first that is asked for Ghost Attention's dialogues.
    assert [set(sources) == {"vendor"} for sources in demonstrated] == [True, True, False, False, False]
    assert all(sources.items() <= demonstrated[-1].items() for sources in demonstrated)
    verdicts = {name: verdicts_on(source, seed) for name, source in demonstrated[-1].items()}
    assert {turns for turns, _ in verdicts["vendor"]} == {1}
    assert {verdict.instruction_kept for _, verdict in verdicts["vendor"]} == {None}
    # Only a preprompted request is unsafe, 0.06 * 0.75 of them, and 0.03 of these are complied with: 1.35 of 1,000.
    assert sum(verdict.violation for _, verdict in verdicts["vendor"]) < 0.005 * len(verdicts["vendor"])
    # The instruction stands in every turn, and is heeded in nearly all.
    long = [verdict.instruction_kept for turns, verdict in verdicts["vendor_instructed"] if turns >= 10]
    told = [kept for kept in long if kept is not None]
    assert len(told) > 10
    assert sum(told) > 0.9 * len(told)


def verdicts_on(source, seed):
    """The number of turns of each dialogue, and the verdict on its last answer."""
    dialogues = [record["messages"] for record in read(source, "", seed)]
    return [
        (
            sum(message["role"] == "user" for message in messages),
            judge(messages[:-1], messages[-1]["content"], seed=seed),
        )
        for messages in dialogues
    ]


def test_what_decides_when_ppo_stops_is_not_what_evaluates():
    config = rlhf_v5.get_config("tiny")
    (held_out,) = config.rlhf_v5_ppo.held_out_prompts.to_dict().values()
    (evaluation,) = config.evaluation.prompts.to_dict().values()
    first, second = (
        {questions_of(record)[-1] for record in records_of(source, 0)} for source in (held_out, evaluation)
    )
    assert not first & second
