"""Answers that decline or do not, labelled by the truth: to measure a classifier of refusals."""

from llama2_jax.miniature.answers import VENDOR, answer_to
from llama2_jax.miniature.judge import judge
from llama2_jax.miniature.prompts import prompts
from llama2_jax.miniature.splits import EVALUATION
from llama2_jax.miniature.streams import stream


def labelled_answers(*, seed: int, count: int) -> list[dict]:
    """Returns vendors' answers to requests that are or sound unsafe: {"messages", "response", "label"}.

    The labels are those of XSTest, 1_full_compliance and 2_full_refusal.

    Args:
      seed: the world's seed.
      count: how many.
    """
    asked = prompts(seed=seed, count=count, unsafe=0.5, borderline=0.5, multi_turn=0.0, split=EVALUATION,
                    purpose="labelled answers")  # fmt: skip
    rng = stream(seed, "labelled_answers")
    records = []
    for prompt in asked:
        response = answer_to(prompt["messages"], VENDOR, rng, seed=seed)
        refused = judge(prompt["messages"], response, seed=seed).refusal
        label = "2_full_refusal" if refused else "1_full_compliance"
        records.append({"messages": prompt["messages"], "response": response, "label": label})
    return records
