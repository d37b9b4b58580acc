"""How much safety data a fine-tuning has beside all of its helpfulness data (section 4.2.3, figure 15)."""

from collections.abc import Mapping, Sequence

from llama2_jax.data.bad_line import shown
from llama2_jax.data.content_hash import prompt_hash, uniform


def is_safety_data(record: Mapping) -> bool:
    """Whether a record is safety data: a dialogue, or an answer to a prompt, that has `safety`.

    Raises:
      ValueError: if the field is neither true nor false.
    """
    found = record.get("safety")
    if found not in (None, True, False):
        raise ValueError(f"a dialogue has the field safety {shown(found)}; wanted true or false")
    return bool(found)


def with_safety_fraction(
    records: Mapping[str, Sequence[dict]], fraction: float, seed: int
) -> tuple[dict[str, list[dict]], dict[str, int]]:
    """Returns all helpfulness data and a part of the safety data.

    The safety records of all sources are ordered by a hash of the seed and of their prompt, and the first ones are
    taken: what a smaller fraction takes, a larger one takes too, and it does not depend on the order of the sources.

    Args:
      records: of each source, dialogues or samples rows; those with `safety` are safety data.
      fraction: of the safety records of all sources together, from 0 to 1; the number is rounded.
      seed: the experiment's.

    Returns:
      The records of each source, in their order, and how many of them are `helpfulness` and `safety` data, and of how
      many safety records, `safety_of`.
    """
    safety = [
        (uniform(seed, "safety fraction", prompt_hash(_prompt(record))), name, index)
        for name, of_source in records.items()
        for index, record in enumerate(of_source)
        if is_safety_data(record)
    ]
    taken = {(name, index) for _, name, index in sorted(safety)[: round(fraction * len(safety))]}
    kept = {
        name: [record for index, record in enumerate(of_source) if not is_safety_data(record) or (name, index) in taken]
        for name, of_source in records.items()
    }
    total = sum(map(len, kept.values()))
    return kept, {"helpfulness": total - len(taken), "safety": len(taken), "safety_of": len(safety)}


def _prompt(record: Mapping) -> Sequence[Mapping]:
    """Returns the messages up to the last one of the user."""
    messages = record["messages"]
    return messages if messages[-1]["role"] == "user" else messages[:-1]
