"""From a stage's sources to token ids: prompts, and answers that a model sampled.

Ids that a model sampled are used as they are: nothing is decoded and encoded again.
"""

from collections.abc import Sequence

from absl import logging
from ml_collections import ConfigDict

from llama2_jax.data.source import as_source
from llama2_jax.data.sources import read_all
from llama2_jax.pipeline.runtime import Inputs, Runtime
from llama2_jax.text.dialogue import EncodedDialogue, encode_dialogue, encode_prompt, encode_with_answer
from llama2_jax.text.tokenizer import Tokenizer


def load_tokenizer(inputs: Inputs) -> Tokenizer:
    """Loads the tokenizer of the stage's input "tokenizer"."""
    return Tokenizer.load(inputs["tokenizer"] / "tokenizer.model")


def read_sources(sources: ConfigDict, runtime: Runtime, kind: str) -> dict[str, list[dict]]:
    """Reads the records of each source, which are of a kind (data/records.py)."""
    return read_all(sources, runtime.data_root, runtime.experiment_seed, kind)


def source_weights(sources: ConfigDict) -> dict[str, float]:
    """Returns each source's weight, for a stage that mixes them."""
    return {name: as_source(source).weight for name, source in sources.items()}


def unweighted(sources: ConfigDict, runtime: Runtime) -> ConfigDict:
    """Returns the sources of a reader that takes them as they are.

    Raises:
      ValueError: if one has a weight, which would have no effect.
    """
    for name, weight in source_weights(sources).items():
        if weight != 1:
            raise ValueError(
                f"{runtime.stage}: source {name!r} has weight={weight}, but its records are read once each, and not "
                "mixed. Leave the weight out; limit and part take fewer records"
            )
    return sources


def read_records(sources: ConfigDict, runtime: Runtime, kind: str) -> list[dict]:
    """Reads the records of several sources, one source after the other; see `unweighted`."""
    by_source = read_sources(unweighted(sources, runtime), runtime, kind)
    return [record for records in by_source.values() for record in records]


def read_prompts(
    sources: ConfigDict, max_new_tokens: int, tokenizer: Tokenizer, runtime: Runtime
) -> tuple[list[dict], list[list[int]]]:
    """Reads and encodes the prompts that leave room for an answer; see `encode_prompts`.

    Every record has `safety` and `category`; rows may leave them out.
    """
    return encode_prompts(read_records(sources, runtime, "prompts"), max_new_tokens, tokenizer, runtime)


def encode_prompts(
    records: Sequence[dict], max_new_tokens: int, tokenizer: Tokenizer, runtime: Runtime
) -> tuple[list[dict], list[list[int]]]:
    """Encodes the records' messages as prompts and keeps those that leave room for an answer.

    Returns:
      The records kept and their prompts' ids.

    Raises:
      ValueError: if no prompt fits.
    """
    longest = longest_prompt(max_new_tokens, runtime)
    encoded = [(record, encode_prompt(tokenizer, record["messages"])) for record in records]
    kept = [(record, prompt) for record, prompt in encoded if len(prompt) <= longest]
    if not kept:
        raise ValueError(f"{runtime.stage}: none of {len(records)} prompts has at most {longest} tokens")
    if len(kept) < len(encoded):
        dropped = len(encoded) - len(kept)
        logging.warning(
            "%s: dropped %d of %d prompts longer than %d tokens", runtime.stage, dropped, len(encoded), longest
        )
    return [record for record, _ in kept], [prompt for _, prompt in kept]


def longest_prompt(max_new_tokens: int, runtime: Runtime) -> int:
    """Returns how many tokens of the model's context are left for a prompt."""
    return runtime.model.max_length - max_new_tokens


def encode_row(tokenizer: Tokenizer, record: dict) -> EncodedDialogue:
    """Encodes a row to train on: a dialogue, or a prompt with the sampled answer's own ids and the loss on these."""
    if "response_tokens" in record:
        return encode_with_answer(tokenizer, record["messages"], record["response_tokens"])
    return encode_dialogue(tokenizer, record["messages"], record.get("loss", "answers"))
