"""Two versions' answers side by side, by judges that see both: wins, ties and losses (section 3.4.2, figure 12)."""

import itertools
from collections.abc import Callable, Mapping, Sequence

from llama2_jax.evaluation.agreement import gwet, ordinal_weights
from llama2_jax.evaluation.win_rate import WinRate

OUTCOMES = ("win", "tie", "loss")


def outcome(label: Mapping, side: str) -> str:
    """Returns what a judge's label ("a", "b" or "tie" under `preferred`) is for the answer on a side."""
    if label["preferred"] == "tie":
        return "tie"
    return "win" if label["preferred"] == side else "loss"


def count(outcomes: Sequence[str]) -> WinRate:
    """Returns how many outcomes there are of each kind."""
    return WinRate(*(outcomes.count(one) for one in OUTCOMES))


def by_group(outcomes: Sequence[str], ours: Sequence[Mapping], theirs: Sequence[Mapping]) -> dict[str, dict]:
    """Returns the outcomes by what the prompts and the answers are.

    Args:
      outcomes: of OUTCOMES, one for each prompt.
      ours, theirs: the two versions' rows: `messages`, `safety`, `category`, `seen` and `answer_tokens`.

    Returns:
      Groups of `prompts` (all of them, unseen and seen ones), `safety`, `category`, `turns` (how many the user has) and
      `length` (our answer is longer, as long or shorter), each with its groups' results by name, as `as_json`.
    """

    def grouped(name: Callable[[int], str]) -> dict[str, dict]:
        names = [name(index) for index in range(len(outcomes))]
        return {
            one: as_json(count([outcome for outcome, other in zip(outcomes, names, strict=True) if other == one]))
            for one in sorted(set(names))
        }

    return {
        "prompts": {
            "all": as_json(count(outcomes)),
            **grouped(lambda index: "seen" if ours[index].get("seen") else "unseen"),
        },
        "safety": grouped(lambda index: "unsafe" if ours[index].get("safety") else "harmless"),
        "category": grouped(lambda index: ours[index].get("category") or "none"),
        "turns": grouped(lambda index: str(_user_turns(ours[index]))),
        "length": grouped(lambda index: _longer(ours[index]["answer_tokens"], theirs[index]["answer_tokens"])),
    }


def judges_agreement(outcomes: Mapping[str, Sequence[str]]) -> dict:
    """Returns how well judges agree beyond chance: Gwet's AC2, a tie between a win and a loss (section 3.4.2).

    Args:
      outcomes: by judge, one of OUTCOMES for each prompt.

    Returns:
      `all`, the coefficient of all judges (None if it is not defined), and that of each two of them, as "one, other".
    """
    weights = ordinal_weights(len(OUTCOMES))

    def of(names: Sequence[str]) -> float | None:
        return gwet(list(zip(*(outcomes[name] for name in names), strict=True)), OUTCOMES, weights)

    return {"all": of(list(outcomes)), **{", ".join(two): of(two) for two in itertools.combinations(outcomes, 2)}}


def as_json(found: WinRate) -> dict:
    """Returns the counts, the rate without ties and its binomial standard error."""
    return {
        "wins": found.wins,
        "ties": found.ties,
        "losses": found.losses,
        "rate": found.rate,
        "standard_error": found.standard_error,
    }


def _user_turns(row: Mapping) -> int:
    return sum(message["role"] == "user" for message in row["messages"])


def _longer(ours: int, theirs: int) -> str:
    return "longer" if ours > theirs else "shorter" if ours < theirs else "as long"
