"""Best of N (section 3.2.3): K answers a prompt with their rewards, the best one kept, and bags pooled over rounds."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from llama2_jax.data.content_hash import prompt_hash
from llama2_jax.inference.generate import Sample
from llama2_jax.pipeline.encoding import encode_row
from llama2_jax.pipeline.reward_models import RewardModels
from llama2_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Candidates:
    """K answers to each prompt and what the reward models say of them.

    Attributes:
      answers: [prompts][K] sampled answers.
      rewards: the reward in (0, 1), [prompts, K]; -inf if the answer did not end in time.
      helpfulness, safety: the two models' logits, [prompts, K].
    """

    answers: Sequence[Sequence[Sample]]
    rewards: Float[np.ndarray, "prompts K"]
    helpfulness: Float[np.ndarray, "prompts K"]
    safety: Float[np.ndarray, "prompts K"]


def score_candidates(
    records: Sequence[Mapping],
    prompts: Sequence[Sequence[int]],
    samples: Sequence[Sample],
    reward_models: RewardModels,
) -> Candidates:
    """Scores the samples to prompts, the same number for each.

    Args:
      records: of the prompts, with `safety`.
      prompts: their token ids.
      samples: the answers of the first prompt, those of the second, and so on.
      reward_models: what scores them.
    """
    rows = [
        {"tokens": np.concatenate([prompts[sample.prompt_index], sample.tokens]),
         "safety": records[sample.prompt_index]["safety"]}
        for sample in samples
    ]  # fmt: skip
    scores = reward_models.score(rows)
    finished = np.asarray([sample.finished for sample in samples])
    shape = (len(prompts), len(samples) // len(prompts))
    return Candidates(
        answers=[samples[i * shape[1] : (i + 1) * shape[1]] for i in range(shape[0])],
        rewards=np.where(finished, scores.combined, -np.inf).reshape(shape),
        helpfulness=scores.helpfulness.reshape(shape),
        safety=scores.safety.reshape(shape),
    )


def best_of_each(rewards: Float[np.ndarray, " answers"], finished: Sequence[bool], each: int) -> list[int]:
    """Returns the index of each prompt's answer with the highest reward, of those that ended if any did.

    Args:
      rewards, finished: of all answers; a prompt's are neighbours.
      each: how many a prompt has.
    """
    # The last key sorts first.
    order = np.lexsort((np.asarray(rewards).reshape(-1, each), np.asarray(finished).reshape(-1, each)), axis=1)
    return (np.arange(len(order)) * each + order[:, -1]).tolist()


def keep_best(
    records: Sequence[dict], candidates: Candidates, temperature: float, round_number: int, tokenizer: Tokenizer
) -> list[dict | None]:
    """Returns the best finished answer of each prompt as a samples row; None for a prompt without one."""
    rows = []
    for index, record in enumerate(records):
        best = int(np.argmax(candidates.rewards[index]))
        if not np.isfinite(candidates.rewards[index, best]):
            rows.append(None)
            continue
        answer = candidates.answers[index][best]
        rows.append({
            "messages": record["messages"],
            "response": tokenizer.decode(answer.tokens),
            "response_tokens": answer.tokens.tolist(),
            "safety": record["safety"],
            "category": record.get("category", ""),
            "temperature": temperature,
            "round": round_number,
            "rewards": {
                "helpfulness": float(candidates.helpfulness[index, best]),
                "safety": float(candidates.safety[index, best]),
                "combined": float(candidates.rewards[index, best]),
            },
        })  # fmt: skip
    return rows


def distinct_prompts(
    records: Sequence[dict], prompts: Sequence[Sequence[int]]
) -> tuple[list[dict], list[Sequence[int]]]:
    """Returns each prompt once: the first record of those with the same messages, and its token ids.

    The paper keeps the best of K answers for each prompt. One that its sources repeat would be answered several times,
    and weigh as much in the fine-tuning.
    """
    first = {}
    for record, prompt in zip(records, prompts, strict=True):
        first.setdefault(prompt_hash(record["messages"]), (record, prompt))
    return [record for record, _ in first.values()], [prompt for _, prompt in first.values()]


def best_of_each_prompt(rows: Sequence[dict], most: int = 1) -> list[dict]:
    """Returns for each prompt its `most` rows with the highest rewards, in the order given.

    Of equal rewards that of the newest round comes first.
    """
    if most < 1:
        raise ValueError(f"bag_answers_per_prompt={most}: wanted at least 1")
    of_prompt: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        of_prompt.setdefault(prompt_hash(row["messages"]), []).append(index)
    kept = []
    for indices in of_prompt.values():
        kept += sorted(indices, key=lambda index: (-rows[index]["rewards"]["combined"], -rows[index]["round"]))[:most]
    return [rows[index] for index in sorted(kept)]


def proportional_shares(sizes: Sequence[int], total: int) -> list[int]:
    """Returns how many of `total` each group gets by its size; they add up to the total, or to all there are."""
    total, everything = min(total, sum(sizes)), max(sum(sizes), 1)
    ends = [round(total * end / everything) for end in np.cumsum(sizes).tolist()]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


def best_of_all_rounds(rows: Sequence[dict], size: int) -> list[dict]:
    """Returns the rows with the highest rewards, at most `size`; 0 is all.

    Those tagged for safety come first, all of them if they are no more than half: whichever refusal has the lower
    reward, without it the model complies with that request again. Of both the same share is kept of each category of
    prompts: a reward model is trained to compare answers to one prompt; between kinds of prompts its scores differ for
    no reason, and the highest of all would be those of two or three kinds.
    """
    if not size or len(rows) <= size:
        return list(rows)
    tagged, others = ([row for row in rows if bool(row["safety"]) == safety] for safety in (True, False))
    for_safety = min(len(tagged), max(size // 2, size - len(others)))
    return [*_best_of_categories(tagged, for_safety), *_best_of_categories(others, size - for_safety)]


def _best_of_categories(rows: Sequence[dict], size: int) -> list[dict]:
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row.get("category", ""), []).append(row)
    kept = []
    for group, share in zip(groups.values(), proportional_shares([*map(len, groups.values())], size), strict=True):
        kept += sorted(group, key=lambda row: -row["rewards"]["combined"])[:share]
    return kept


def rescored(rows: Sequence[dict], reward_models: RewardModels, tokenizer: Tokenizer) -> list[dict]:
    """Returns rows of earlier rounds with the rewards of this round's models."""
    scored = [{"tokens": encode_row(tokenizer, row).tokens, "safety": row["safety"]} for row in rows]
    scores = reward_models.score(scored)
    return [{**row, "rewards": scores.row(index)} for index, row in enumerate(rows)]
