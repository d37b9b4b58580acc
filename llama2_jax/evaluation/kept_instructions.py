"""The share of answers that keep the system message's instruction, by turn (section 3.3, Table 30).

A dialogue is seen if its record says so (`seen`: training uses the words of its instruction too).
"""

from collections.abc import Collection, Mapping, Sequence

from llama2_jax.evaluation.verdicts import count_known, mean_known


def known_and_new(dialogues: Sequence[Mapping]) -> tuple[list[int], list[int]]:
    """Returns the indices of dialogues with known and of those with new instructions.

    Where only one kind occurs, or no record says which it is, there is nothing to tell apart: all are in the first.
    """
    seen = [bool(dialogue.get("seen")) for dialogue in dialogues]
    if len(set(seen)) < 2:
        return list(range(len(dialogues))), []
    return [index for index, one in enumerate(seen) if one], [index for index, one in enumerate(seen) if not one]


def kept_by_turn(
    verdicts: Mapping[int, Mapping[int, Mapping | None]], dialogues: Collection[int]
) -> tuple[dict[str, float | None], dict[str, int]]:
    """Returns by turn the share of answers that keep the instruction, and how many the judge decided.

    Args:
      verdicts: for each turn those on the dialogues that reach it, by the dialogue's index.
      dialogues: those that count. A turn at which the judge decided nothing of them has None.
    """
    of_turn = {
        str(turn): [verdict for index, verdict in found.items() if index in dialogues]
        for turn, found in verdicts.items()
    }
    return (
        {turn: mean_known(found, "instruction_kept") for turn, found in of_turn.items()},
        {turn: count_known(found, "instruction_kept") for turn, found in of_turn.items()},
    )
