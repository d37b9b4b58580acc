"""Few good examples and many poor ones to fine-tune on: quality, diversity and quantity (LIMA, arXiv 2305.11206)."""

from llama2_jax.miniature.answers import IDEAL, PUBLIC, answer_to
from llama2_jax.miniature.demonstrations import LEVELS, dialogue
from llama2_jax.miniature.judge import judge
from llama2_jax.miniature.prompts import assistant, borderline_prompt, harmless_prompt, unsafe_prompt
from llama2_jax.miniature.requests.howto import ATTACKS
from llama2_jax.miniature.requests.kinds import SHARES
from llama2_jax.miniature.splits import TRAINING, kinds_in
from llama2_jax.miniature.streams import pick, stream

# Answers that careful authors write in one manner, and those of the web as they come.
MANNERS = {"curated": IDEAL, "unfiltered": PUBLIC}
# The turns of the examples that are dialogues.
TURNS = (2, 3, 4)


def examples(
    *,
    seed: int,
    count: int,
    quality: str = "curated",
    kinds: tuple[str, ...] = (),
    unsafe: float = 0.1,
    borderline: float = 0.05,
    multi_turn: float = 0.03,
    split: str = TRAINING,
    purpose: str = "",
) -> list[dict]:
    """Returns examples: {"messages", "source"}; fewer of them are the first ones of more.

    Args:
      seed: the world's seed.
      count: how many.
      quality: "curated" or "unfiltered" (MANNERS).
      kinds: of request, such as ("howto",): then all are single requests of these kinds. By default all kinds.
      unsafe: the share of unsafe requests (LIMA's have 13 of 1,000).
      borderline: the share of harmless requests that sound unsafe.
      multi_turn: the share of dialogues of several turns (LIMA: 30 of 1,030).
      split: of the questions (splits.py).
      purpose: another name draws other examples.

    Raises:
      ValueError: if the quality or a kind is unknown.
    """
    if quality not in MANNERS:
        raise ValueError(f"quality is {quality!r}; the examples are {' or '.join(MANNERS)}")
    if unknown := sorted(set(kinds) - set(SHARES)):
        raise ValueError(f"kinds has {', '.join(unknown)}; the kinds of request are {', '.join(SHARES)}")
    rng, manner = stream(seed, "examples", quality, purpose), MANNERS[quality]
    shares = kinds_in(split, {kind: share for kind, share in SHARES.items() if not kinds or kind in kinds})
    special = () if kinds else (unsafe, borderline, multi_turn)
    records = []
    for _ in range(count):
        draw = rng.random()
        if draw < sum(special[:1]):
            messages = unsafe_prompt(seed, rng, rng.choice(ATTACKS), split=split)["messages"]
        elif draw < sum(special[:2]):
            messages = borderline_prompt(seed, rng, split=split)["messages"]
        elif draw < sum(special):
            messages = dialogue(seed, rng, rng.choice(TURNS), manner, split=split)
        else:
            messages = harmless_prompt(seed, rng, pick(rng, shares), pick(rng, LEVELS), split=split)["messages"]
        if messages[-1]["role"] == "user":
            messages = [*messages, assistant(answer_to(messages, manner, rng, seed=seed))]
        records.append({"messages": messages, "source": quality})
    return records


def grade(samples: list[dict], *, seed: int, noise: float = 0.08) -> list[dict]:
    """Grades answers to harmless prompts as an author does who looks at them: by the truth, with errors.

    Args:
      samples: with `messages` and `response`.
      seed: the world's seed.
      noise: standard deviation of an error, which depends on the answer and not on its place.
    """
    grades = []
    for sample in samples:
        verdict = judge(sample["messages"], sample["response"], seed=seed)
        error = stream(seed, "grade", sample["messages"][-1]["content"], sample["response"]).gauss(0, noise)
        grades.append({"helpfulness": verdict.helpfulness + error})
    return grades
