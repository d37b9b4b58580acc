"""From a stage's sources to token ids: prompts, and answers that a model sampled.

Ids that a model sampled are used as they are: nothing is decoded and encoded again.
"""

from collections.abc import Sequence

from absl import logging
from ml_collections import ConfigDict

from llama2_jax.data.sources import read_all
from llama2_jax.pipeline.runtime import Runtime
from llama2_jax.text.dialogue import EncodedDialogue, encode_dialogue, encode_prompt, encode_with_answer
from llama2_jax.text.tokenizer import Tokenizer


def read_records(sources: ConfigDict, runtime: Runtime) -> list[dict]:
    """The records of several sources, one source after the other."""
    read = read_all(sources, root=runtime.data_root, seed=runtime.experiment_seed)
    return [record for records in read.values() for record in records]


def encode_prompts(
    tokenizer: Tokenizer, records: Sequence[dict], room: int, source: str
) -> tuple[list[dict], list[list[int]]]:
    """Encodes the records' messages as prompts and keeps those that leave room for an answer.

    Args:
      room: the most tokens a prompt may have.

    Returns:
      The records kept and their prompts' ids.

    Raises:
      ValueError: if no prompt fits.
    """
    encoded = [(record, encode_prompt(tokenizer, record["messages"])) for record in records]
    kept = [(record, prompt) for record, prompt in encoded if len(prompt) <= room]
    if not kept:
        raise ValueError(f"{source}: none of {len(records)} prompts has at most {room} tokens")
    if len(kept) < len(encoded):
        logging.warning(
            "%s: left out %d of %d prompts longer than %d tokens", source, len(encoded) - len(kept), len(encoded), room
        )
    return [record for record, _ in kept], [prompt for _, prompt in kept]


def encode_row(tokenizer: Tokenizer, record: dict) -> EncodedDialogue:
    """A stage's row as training data: a dialogue, or a prompt with the sampled answer's own ids and the loss on it."""
    if "response_tokens" in record:
        return encode_with_answer(encode_prompt(tokenizer, record["messages"]), record["response_tokens"])
    return encode_dialogue(tokenizer, record["messages"], record.get("loss", "answers"))
