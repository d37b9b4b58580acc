"""Dialogues for supervised fine-tuning (section 3.1), of mixed quality, and pairs as in open preference data."""

import dataclasses
import random
import re
from collections.abc import Mapping

from llama2_jax.miniature.answers import PUBLIC, VENDOR, Manner, answer_to
from llama2_jax.miniature.instructions import draw_instruction
from llama2_jax.miniature.judge import judge
from llama2_jax.miniature.prompts import (
    assistant,
    borderline_prompt,
    harmless_prompt,
    short_request,
    system,
    unsafe_prompt,
    user,
)
from llama2_jax.miniature.requests.howto import ATTACKS
from llama2_jax.miniature.requests.identity import QUESTIONS
from llama2_jax.miniature.requests.kinds import SHARES
from llama2_jax.miniature.safety import answer_templates, generic_preprompts
from llama2_jax.miniature.splits import TRAINING, kinds_in
from llama2_jax.miniature.streams import pick, stream

# Demonstrations are mostly of easy requests; the rounds of RLHF have harder ones.
LEVELS = {1: 0.34, 2: 0.28, 3: 0.2, 4: 0.11, 5: 0.07}
# Few are long, but some are as long as the dialogues that instructions are measured over.
DIALOGUE_TURNS = {2: 0.36, 3: 0.22, 4: 0.14, 6: 0.1, 10: 0.08, 16: 0.05, 20: 0.05}
# Where an instruction stands: in the system message, in one of the user's turns, or in each of them.
# Ghost Attention repeats it in each, so a model has to have seen that in long dialogues too.
INSTRUCTION_PLACES = {"system": 0.35, "one": 0.25, "each": 0.4}
# The share of dialogues with a safety preprompt as system message.
PREPROMPTED_SHARE = 0.06
# What an open answer that is not to the point is: a refusal, an answer to any other request, one to another request of
# the same kind, one in which sentences of such a one stand, or one that says something again and again.
SPOILED = {"refusal": 0.15, "another": 0.35, "alike": 0.2, "inserted": 0.2, "repeated": 0.1}
# With a safety preprompt, vendors answer unsafe requests safely.
PREPROMPTED = dataclasses.replace(VENDOR, safe=0.97, explained=0.95)


def demonstrations(
    *,
    seed: int,
    count: int,
    unsafe: float = 0.15,
    borderline: float = 0.05,
    multi_turn: float = 0.15,
    instructed: float = 0.12,
    places: Mapping[str, float] = INSTRUCTION_PLACES,
    false_refusal: float = VENDOR.false_refusal,
    split: str = TRAINING,
    purpose: str = "",
) -> list[dict]:
    """Returns vendors' demonstrations: {"messages", "source"}.

    Those of the training split ask about half of the lands and two thirds of the tasks, the others about all.

    Args:
      seed: the world's seed.
      count: how many dialogues.
      unsafe: the share of single requests that are unsafe.
      borderline: the share of single requests that are harmless but sound unsafe.
      multi_turn: the share of dialogues of two to twenty turns.
      instructed: the share of dialogues of one turn with a standing instruction; of longer ones it is twice as large.
      places: where instructions stand, by weight, as in INSTRUCTION_PLACES.
      false_refusal: the share of borderline requests that vendors decline.
      split: the split of all questions (splits.py): "training", "validation" or "evaluation".
      purpose: another name draws other demonstrations.

    Raises:
      ValueError: if a place is unknown, or the split.
    """
    if unknown := sorted(set(places) - set(INSTRUCTION_PLACES)):
        raise ValueError(f"places has {unknown}; instructions stand in {sorted(INSTRUCTION_PLACES)}")
    rng, vendor = stream(seed, "demonstrations", purpose), dataclasses.replace(VENDOR, false_refusal=false_refusal)
    records = []
    for _ in range(count):
        kind = rng.random()
        if kind < multi_turn:
            turns, instruction = pick(rng, DIALOGUE_TURNS), rng.random() < 2 * instructed
            messages = dialogue(seed, rng, turns, vendor, places=places if instruction else None, split=split)
        elif kind < multi_turn + PREPROMPTED_SHARE:
            messages = _preprompted(seed, rng, split)
        elif kind < multi_turn + PREPROMPTED_SHARE + instructed:
            messages = dialogue(seed, rng, 1, vendor, places=places, split=split)
        else:
            messages = _single(seed, rng, vendor, unsafe, borderline, split)
        records.append({"messages": messages, "source": "demonstrations"})
    return records


def public_demonstrations(
    *,
    seed: int,
    count: int,
    unsafe: float = 0.08,
    borderline: float = 0.05,
    split: str = TRAINING,
    purpose: str = "",
) -> list[dict]:
    """Returns public instruction data (section 3.1, "Getting Started"): single turns, terse answers, often unsafe.

    Args are those of `demonstrations`.
    """
    rng = stream(seed, "public_demonstrations", purpose)
    return [
        {"messages": _single(seed, rng, PUBLIC, unsafe, borderline, split), "source": "public_demonstrations"}
        for _ in range(count)
    ]


def open_preferences(
    *,
    seed: int,
    count: int,
    domain: str = "helpfulness",
    noise: float = 0.25,
    flipped: float = 0.08,
    off_topic: float = 0.0,
    borderline: float = 0.05,
    split: str = TRAINING,
    purpose: str = "",
) -> list[dict]:
    """Returns preferences like those of open data sets (Table 6): two people's answers, coarser and noisier labels.

    People on the web also give answers to other questions, say more than was asked for, or refuse harmless requests.
    The rounds' own comparisons rarely have such answers, since a policy seldom gives them; a reward model that has
    never seen any scores them as if they were to the point, and a policy that is optimised against it exploits that.

    Args:
      seed: the world's seed.
      count: how many.
      domain: "helpfulness" or "safety".
      noise: standard deviation of the error of a label's judgement of an answer.
      flipped: the share of labels that are reversed at random.
      off_topic: the share of pairs in which one of the answers is not to the point. For helpfulness SPOILED says how;
        for safety all are recipes for something that sounds alike, beside an answer that is mostly safe.
      borderline: the share of requests that are harmless but sound unsafe.
      split: whose questions are asked (splits.py).
      purpose: another name draws other pairs.
    """
    if domain not in ("helpfulness", "safety"):
        raise ValueError(f"domain is {domain!r}; wanted 'helpfulness' or 'safety'")
    rng = stream(seed, "open_preferences", domain, purpose)
    records = []
    while len(records) < count:
        unsafe = 0.8 if domain == "safety" else 0.0
        request = _request(seed, rng, split, unsafe=unsafe, borderline=borderline, attacked=0.5)
        messages = request["messages"]
        answers = [answer_to(messages, manner, rng, seed=seed) for manner in (VENDOR, PUBLIC)]
        if rng.random() < off_topic:
            first = rng.randrange(2)
            if domain == "helpfulness":
                answers[first] = _spoiled(seed, rng, split, request["category"], answers[first])
            else:
                answers[first] = _recipe_for_what_sounds_alike(seed, rng, split)
                answers[1 - first] = answer_to(messages, PREPROMPTED, rng, seed=seed)
        utilities = []
        for answer in answers:
            verdict = judge(messages, answer, seed=seed)
            utilities.append((verdict.safety if domain == "safety" else verdict.helpfulness) + rng.gauss(0, noise))
        if answers[0] == answers[1]:
            continue
        best = int((utilities[1] > utilities[0]) != (rng.random() < flipped))
        records.append(
            {
                "messages": messages,
                "chosen": answers[best],
                "rejected": answers[1 - best],
                "rating": "better" if abs(utilities[0] - utilities[1]) > 2 * noise else "slightly_better",
                "domain": domain,
                "round": 0,
                "sources": ["open", "open"],
            }
        )
    return records


def dialogue(
    seed: int,
    rng: random.Random,
    turns: int,
    manner: Manner,
    *,
    places: Mapping[str, float] | None = None,
    split: str = TRAINING,
) -> list[dict]:
    """Returns a dialogue of short requests of the split, with a standing instruction if there are places for one."""
    told, kinds = _instructions(seed, rng, turns, places) if places else ({}, [])
    # The questions about the assistant are not in the other splits.
    kinds = kinds if split == TRAINING else []
    messages = [system(told["system"])] if "system" in told else []
    for turn in range(turns):
        if kinds and rng.random() < 0.5:
            text = _probe(rng, kinds)
        else:
            text = short_request(seed, rng, split=split, demonstrated=split == TRAINING)
        messages.append(user(f"{told[turn]} {text}" if turn in told else text))
        messages.append(assistant(answer_to(messages, manner, rng, seed=seed)))
    return messages


def _instructions(
    seed: int, rng: random.Random, turns: int, places: Mapping[str, float]
) -> tuple[dict[str | int, str], list[str]]:
    """Returns an instruction by where it stands, "system" or a turn (0, 1, ...), and its kinds."""
    drawn = draw_instruction(seed, rng, "train", combined=0.2)
    text = drawn["terse" if rng.random() < 0.5 else "instruction"]
    place = pick(rng, places)
    turns_told = {"system": ["system"], "one": [rng.randrange(turns)], "each": range(turns)}[place]
    return dict.fromkeys(turns_told, text), drawn["kinds"]


def _probe(rng: random.Random, kinds: list[str]) -> str:
    questions = [QUESTIONS[kind] for kind in kinds if kind in QUESTIONS]
    return rng.choice(questions or tuple(QUESTIONS.values()))


def _single(
    seed: int, rng: random.Random, manner: Manner, unsafe: float, borderline: float, split: str = TRAINING
) -> list[dict]:
    messages = _request(seed, rng, split, unsafe=unsafe, borderline=borderline, attacked=0.5)["messages"]
    return [*messages, assistant(answer_to(messages, manner, rng, seed=seed))]


def _spoiled(seed: int, rng: random.Random, split: str, kind: str, answer: str) -> str:
    """Returns an answer that is not to the point: a refusal, one to another request, or with parts of such a one."""
    how = pick(rng, SPOILED)
    if how == "refusal":
        return _single(seed, rng, PREPROMPTED, 1.0, 0.0, split)[-1]["content"]
    if how == "another":
        return _single(seed, rng, VENDOR, 0.0, 0.0, split)[-1]["content"]
    if how == "repeated":
        sentences = _sentences(answer)
        again = rng.randrange(len(sentences))
        return " ".join([*sentences[:again], *[sentences[again]] * rng.randint(2, 4), *sentences[again + 1 :]])
    demonstrated, level = split == TRAINING, pick(rng, LEVELS)
    if kind == "borderline":
        other = borderline_prompt(seed, rng, split=split, demonstrated=demonstrated)
    else:
        other = harmless_prompt(seed, rng, kind, level, split=split, demonstrated=demonstrated)
    alike = answer_to(other["messages"], dataclasses.replace(VENDOR, false_refusal=0.0), rng, seed=seed)
    return alike if how == "alike" else _inserted(rng, answer, alike)


def _inserted(rng: random.Random, answer: str, other: str) -> str:
    """Returns an answer with some of another one's sentences, one after the other, somewhere behind its first."""
    sentences, others = _sentences(answer), _sentences(other)
    first = rng.randrange(len(others))
    some = others[first : first + rng.randint(1, len(others) - first)]
    place = rng.randint(1, len(sentences))
    return " ".join([*sentences[:place], *some, *sentences[place:]])


def _sentences(text: str) -> list[str]:
    return re.findall(r"[^.?!\s][^.?!]*[.?!]", text)


def _recipe_for_what_sounds_alike(seed: int, rng: random.Random, split: str) -> str:
    """Returns an answer that complies with another request, one that sounds unsafe."""
    messages = borderline_prompt(seed, rng, split=split, demonstrated=split == TRAINING)["messages"]
    return answer_to(messages, dataclasses.replace(VENDOR, false_refusal=0.0), rng, seed=seed)


def _request(seed: int, rng: random.Random, split: str, *, unsafe: float, borderline: float, attacked: float) -> dict:
    demonstrated, draw = split == TRAINING, rng.random()
    if draw < unsafe:
        attack = rng.choice(ATTACKS) if rng.random() < attacked else "plain"
        return unsafe_prompt(seed, rng, attack, split=split, demonstrated=demonstrated)
    if draw < unsafe + borderline:
        return borderline_prompt(seed, rng, split=split, demonstrated=demonstrated)
    kind, level = pick(rng, kinds_in(split, SHARES)), pick(rng, LEVELS)
    return harmless_prompt(seed, rng, kind, level, split=split, demonstrated=demonstrated)


def _preprompted(seed: int, rng: random.Random, split: str) -> list[dict]:
    prompt = _request(seed, rng, split, unsafe=0.75, borderline=0.1, attacked=1.0)
    template = prompt["safety"] and rng.random() < 0.5
    preprompt = answer_templates()[prompt["category"]] if template else rng.choice(generic_preprompts())
    messages = [system(preprompt), *prompt["messages"]]
    return [*messages, assistant(answer_to(messages, PREPROMPTED, rng, seed=seed))]
