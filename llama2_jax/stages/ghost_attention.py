"""Ghost Attention (section 3.3): dialogues in which an instruction given once is kept to the end.

The instruction is put before every user message while the newest model answers; for training it stands in the first
turn alone (tersely, half the time), and the loss is on the last answer only.
"""

from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.inference.generate import Sampling
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.conversations import Conversation, converse_resumable
from llama2_jax.pipeline.device_programs import LONGEST_PROMPTS, abstract_model, generation
from llama2_jax.pipeline.encoding import load_tokenizer, read_records
from llama2_jax.pipeline.runtime import Inputs, Runtime
from llama2_jax.pipeline.sampling import load_policy
from llama2_jax.pipeline.stage_files import write_jsonl
from llama2_jax.sizing.programs import DeviceWork


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Writes dialogues.jsonl: records with `loss`: "last"."""
    dialogues = read_records(config.dialogues, runtime, "user_turns")
    turns = [record["turns"] if "turns" in record else user_turns(record["messages"]) for record in dialogues]
    instructions = read_records(config.instructions, runtime, "instructions")
    instructions = choose_instructions(dialogues, instructions, config.terse_fraction, runtime.seed)
    asked = [
        [f"{chosen['instruction']} {turn}" for turn in user] for chosen, user in zip(instructions, turns, strict=True)
    ]
    policy = load_policy(inputs["policy"], load_tokenizer(inputs), runtime)
    sampling = Sampling(config.temperature, config.top_p, config.max_new_tokens)
    conversations = converse_resumable("dialogues", policy, asked, sampling, runtime.key, runtime)
    rows = [
        ghost_dialogue(user, conversation, chosen["shown"])
        for user, conversation, chosen in zip(turns, conversations, instructions, strict=True)
        if len(conversation.answers) == len(user) and conversation.finished[-1]
    ]
    write_jsonl(runtime.folder / "dialogues.jsonl", rows)
    return {
        "dialogues": len(rows),
        "left_out_unfinished_or_full": len(turns) - len(rows),
        "terse": float(np.mean([chosen["terse"] for chosen in instructions])),
        "turns": float(np.mean([len(row["messages"]) // 2 for row in rows])) if rows else None,
    }


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """Generation, turn after turn."""
    policy = abstract_model("policy", model, mesh)
    return DeviceWork(generation(config, model, mesh, policy), assumptions=(LONGEST_PROMPTS,))


def user_turns(messages: Sequence[dict]) -> list[str]:
    """The user's side of a dialogue."""
    return [message["content"] for message in messages if message["role"] == "user"]


def choose_instructions(
    dialogues: Sequence[dict], instructions: Sequence[dict], terse_fraction: float, seed: int
) -> list[dict]:
    """An instruction for each dialogue, and the form in which training shows it: as it is, or tersely.

    Args:
      dialogues: a record that has an `instruction` of its own, and its `terse` form, keeps it.
      instructions: records with `instruction` and `terse`, drawn from for the other dialogues.
    """
    generator = np.random.default_rng(seed)
    chosen = []
    for dialogue in dialogues:
        record = dialogue if "instruction" in dialogue else instructions[generator.integers(len(instructions))]
        terse = bool(generator.random() < terse_fraction)
        chosen.append(
            {
                "instruction": record["instruction"],
                "terse": terse,
                "shown": record["terse"] if terse else record["instruction"],
            }
        )
    return chosen


def ghost_dialogue(user: Sequence[str], conversation: Conversation, instruction: str) -> dict:
    """The training form: the instruction in the system message of the first turn, the loss on the last answer."""
    messages = [{"role": "system", "content": instruction}]
    for question, answer in zip(user, conversation.answers, strict=True):
        messages += [{"role": "user", "content": question}, answer]
    return {"messages": messages, "loss": "last", "source": "ghost_attention"}
