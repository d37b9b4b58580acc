"""Ghost Attention (section 3.3): dialogues in which an instruction given once is kept to the end.

The instruction, a random combination of constraints, is put before every user message while the newest model answers;
for training it stands in the first turn alone (tersely, half the time), and the loss is on the last answer only.
A dialogue of many turns costs as many answers to make and to read, so more of them can be trained on: each is then the
last answer of the dialogue up to it, and what came before is its context alone.
"""

import json
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.records import user_turns
from llama2_jax.inference.generate import Sampling
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.conversations import Conversation, converse_resumable
from llama2_jax.pipeline.device_programs import LONGEST_PROMPTS, TURN_AFTER_TURN, abstract_model, generation
from llama2_jax.pipeline.encoding import load_tokenizer, read_records
from llama2_jax.pipeline.runtime import Inputs, Runtime, stable_hash
from llama2_jax.pipeline.sampling import load_policy
from llama2_jax.pipeline.stage_files import write_jsonl
from llama2_jax.sizing.programs import DeviceWork


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Writes dialogues.jsonl: records whose answers have `weight` 0 but for those that are trained on."""
    dialogues = read_records(config.dialogues, runtime, "user_turns")
    turns = [user_turns(record) for record in dialogues]
    constraints = read_records(config.instructions, runtime, "instructions")
    instructions = choose_instructions(dialogues, constraints, config.terse_fraction, runtime.seed)
    asked = [
        [f"{chosen['instruction']} {turn}" for turn in user] for chosen, user in zip(instructions, turns, strict=True)
    ]
    policy = load_policy(inputs["policy"], load_tokenizer(inputs), runtime)
    sampling = Sampling(config.temperature, config.top_p, config.max_new_tokens)
    conversations = converse_resumable("dialogues", policy, asked, sampling, runtime.key, runtime)
    kept = [
        (record, conversation, chosen)
        for record, conversation, chosen in zip(dialogues, conversations, instructions, strict=True)
        if len(conversation.answers) == len(user_turns(record)) and conversation.finished[-1]
    ]
    trained = [
        trained_turns(record, conversation.finished, config.trained_answers, runtime.seed)
        for record, conversation, _ in kept
    ]
    rows = [
        ghost_dialogue(user_turns(record), conversation, chosen["shown"], turns_of_row)
        for (record, conversation, chosen), turns_of_row in zip(kept, trained, strict=True)
    ]
    write_jsonl(runtime.folder / "dialogues.jsonl", rows)
    if not rows:
        logging.warning(
            "%s keeps none of %d dialogues: each has an answer that does not end within %d tokens, or no room for the "
            "next one; fine-tuning learns no Ghost Attention",
            runtime.stage, len(turns), config.max_new_tokens,
        )  # fmt: skip
    return {
        "dialogues": len(kept),
        "trained_answers": sum(map(len, trained)),
        "left_out_unfinished_or_full": len(turns) - len(kept),
        "terse": float(np.mean([chosen["terse"] for chosen in instructions])),
        "turns": float(np.mean([len(user_turns(record)) for record, _, _ in kept])) if kept else None,
    }


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """Generation, turn after turn."""
    policy = abstract_model("policy", model, mesh)
    return DeviceWork(generation(config, model, mesh, policy), assumptions=(LONGEST_PROMPTS, TURN_AFTER_TURN))


def choose_instructions(
    dialogues: Sequence[Mapping], constraints: Sequence[Mapping], terse_fraction: float, seed: int
) -> list[dict]:
    """Chooses an instruction for each dialogue, and the form in which training shows it: as it is, or tersely.

    A dialogue's draw depends on the seed and on what is said in it, not on its place among the others.

    Args:
      dialogues: a record that has an `instruction` of its own, and its `terse` form, keeps it.
      constraints: records with `instruction`, `terse` and perhaps `kind`, combined at random for the other dialogues:
        every set of kinds that is not empty is as likely as another, and so is every constraint of a kind.
      terse_fraction: the share of dialogues that training shows the terse form of.
      seed: of the draws.

    Raises:
      ValueError: if a record lacks a form, or there is no constraint for a dialogue without an instruction.
    """
    for record in constraints:
        _check_forms(record)
    kinds: dict[str, list[Mapping]] = {}
    for record in constraints:
        kinds.setdefault(record.get("kind", ""), []).append(record)
    return [_choose(dialogue, tuple(kinds.values()), terse_fraction, seed) for dialogue in dialogues]


def _choose(
    dialogue: Mapping, kinds: Sequence[Sequence[Mapping]], terse_fraction: float, seed: int
) -> dict[str, str | bool]:
    said = json.dumps([seed, user_turns(dialogue), dialogue.get("instruction")])
    generator = np.random.default_rng(stable_hash(said))
    if "instruction" in dialogue:
        _check_forms(dialogue)
        chosen = [dialogue]
    elif kinds:
        # The bits of a number from 1 on: which kinds are combined.
        combined = 1 + generator.integers(2 ** len(kinds) - 1)
        chosen = [kind[generator.integers(len(kind))] for bit, kind in enumerate(kinds) if combined >> bit & 1]
    else:
        raise ValueError(
            f"the dialogue {user_turns(dialogue)[0][:60]!r} brings no instruction of its own, and "
            "config.<stage>.instructions has no constraints to draw one from"
        )
    forms = {form: " ".join(record[form] for record in chosen) for form in ("instruction", "terse")}
    terse = bool(generator.random() < terse_fraction)
    return {
        "instruction": forms["instruction"],
        "terse": terse,
        "shown": forms["terse"] if terse else forms["instruction"],
    }


def _check_forms(record: Mapping) -> None:
    for form in ("instruction", "terse"):
        if not isinstance(record.get(form), str) or not record[form].strip():
            raise ValueError(
                f"an instruction for Ghost Attention has the field {form} {record.get(form)!r}; wanted a text, as in "
                '{"instruction": "Always act as Napoleon.", "terse": "Figure: Napoleon."}'
            )


def trained_turns(record: Mapping, finished: Sequence[bool], count: int, seed: int) -> list[int]:
    """Returns the turns of a dialogue, counted from 1 and in order, whose answers are trained on.

    Args:
      record: the dialogue. If it says what its instruction `applies_to`, no earlier answers than to those turns are.
      finished: for each answer whether it ended; only those that did are trained on.
      count: at most so many: the last answer, and earlier ones drawn at random.
      seed: of the draw, which depends on what is said too.
    """
    user = user_turns(record)
    generator = np.random.default_rng(stable_hash(json.dumps([seed, "trained", user])))
    allowed = range(1, len(user)) if record.get("applies_to") is None else record["applies_to"]
    earlier = [turn for turn in allowed if turn < len(user) and finished[turn - 1]]
    drawn = generator.choice(earlier, size=min(count - 1, len(earlier)), replace=False)
    return [*sorted(int(turn) for turn in drawn), len(user)]


def ghost_dialogue(user: Sequence[str], conversation: Conversation, instruction: str, trained: Collection[int]) -> dict:
    """The training form: the instruction in the system message of the first turn, the loss on the answers named.

    Args:
      user: the user's turns as they are shown.
      conversation: with the answers to them.
      instruction: in the form that is shown.
      trained: the turns, counted from 1, whose answers are trained on.
    """
    messages = [{"role": "system", "content": instruction}]
    for turn, (question, answer) in enumerate(zip(user, conversation.answers, strict=True), 1):
        messages += [{"role": "user", "content": question}, {**answer, "weight": int(turn in trained)}]
    return {"messages": messages, "source": "ghost_attention"}
