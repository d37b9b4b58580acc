"""Dialogues under a standing instruction: for Ghost Attention (section 3.3), and to measure it (Table 30)."""

import random
from collections.abc import Mapping

from llama2_jax.miniature.instructions import draw_instruction
from llama2_jax.miniature.prompts import short_request, system
from llama2_jax.miniature.requests.identity import QUESTIONS
from llama2_jax.miniature.splits import EVALUATION, TRAINING
from llama2_jax.miniature.streams import stream

KINDS_IN_TURN = ("start", "figure", "hobby")
# The turns in which an instruction is probed, counted from 1.
PROBE_TURNS = (1, 2, 4, 6, 10, 20)


def ghost_attention_dialogues(
    *,
    seed: int,
    count: int,
    turns: tuple[int, int] = (2, 20),
    combined: float = 0.3,
    probed: float = 0.4,
    weights: Mapping[str, float] | None = None,
    purpose: str = "",
) -> list[dict]:
    """Returns user turns of dialogues to be continued under an instruction: {"instruction", "terse", "turns",
    "applies_to": the turns, counted from 1, to whose answers the instruction applies}.

    Args:
      seed: the world's seed.
      count: how many dialogues.
      turns: the fewest and the most user turns; combined instructions, repeated in every turn, get five sixths at most.
      combined: the share of instructions that combine two kinds.
      probed: the share of turns that ask about the instruction, if there is a question for it.
      weights: of the kinds of instruction; all alike by default.
      purpose: another name draws other dialogues.
    """
    rng = stream(seed, "ghost_attention_dialogues", purpose)
    records = []
    for _ in range(count):
        drawn = draw_instruction(seed, rng, "train", combined, weights)
        questions = [QUESTIONS[kind] for kind in drawn["kinds"] if kind in QUESTIONS]
        most = turns[1] * 5 // 6 if len(drawn["kinds"]) > 1 else turns[1]
        length = rng.randint(turns[0], max(turns[0], most))
        # Training is on the last turn, so it asks about the instruction most often.
        chances = [probed] * (length - 1) + [0.8]
        said = [_turn(seed, rng, questions, chance) for chance in chances]
        everywhere = "start" in drawn["kinds"]
        applies_to = [turn for turn, text in enumerate(said, 1) if everywhere or text in questions]
        records.append(
            {"instruction": drawn["instruction"], "terse": drawn["terse"], "turns": said, "applies_to": applies_to}
        )
    return records


def instruction_dialogues(
    *, seed: int, count: int, turns: int = 20, split: str = "held_out", terse: bool = False, purpose: str = ""
) -> list[dict]:
    """Returns user turns of dialogues that measure whether an instruction is kept (`instruction_kept` of the judge).

    Training asks none of their questions but those about the assistant itself, for which there are no others.

    Returns:
      Records {"messages": [system message], "turns": [user messages], "probe_turns": of PROBE_TURNS, "kind", "seen"}.
      Each is continued turn by turn with the model's own answers, and judged at the probe turns (counted from 1).
      It is seen if training has its instruction too.

    Args:
      seed: the world's seed.
      count: how many dialogues; the kinds of instruction in turn.
      turns: user turns.
      split: "held_out" or "train" values of the instructions.
      terse: whether the instruction is in its terse form.
      purpose: another name draws other dialogues.
    """
    rng = stream(seed, "instruction_dialogues", split, purpose)
    probe_turns = [turn for turn in PROBE_TURNS if turn <= turns]
    records = []
    while len(records) < count:
        drawn = draw_instruction(seed, rng, split, combined=0.0)
        kind = drawn["kinds"][0]
        if kind != KINDS_IN_TURN[len(records) % len(KINDS_IN_TURN)]:
            continue
        questions = [QUESTIONS[kind]] if kind in QUESTIONS else []
        said = [_turn(seed, rng, questions, float(turn in probe_turns), EVALUATION) for turn in range(1, turns + 1)]
        messages = [system(drawn["terse" if terse else "instruction"])]
        records.append(
            {"messages": messages, "turns": said, "probe_turns": probe_turns, "kind": kind, "seen": split == "train"}
        )
    return records


def _turn(seed: int, rng: random.Random, questions: list[str], chance: float, split: str = TRAINING) -> str:
    return rng.choice(questions) if questions and rng.random() < chance else short_request(seed, rng, split=split)
