"""Rejection sampling (section 3.2.3): K answers a prompt, the single best kept, fine-tuning on what was kept.

Up to V3 the bag is this round's; from V4 on the best answers of all rounds join, scored anew by the newest models.
Writes sweep.json (how the temperature was chosen), samples.jsonl (this round's best answers), bag.jsonl (what was
trained on) and the fine-tuned model.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.inference.generate import Sampling, generate
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.device_programs import (
    LONGEST_PROMPTS,
    DeviceWork,
    abstract_model,
    generation,
    language_model_training,
)
from llama2_jax.pipeline.encoding import encode_prompts, encode_row, read_records
from llama2_jax.pipeline.resumable import map_resumable, shard_size
from llama2_jax.pipeline.reward_models import (
    RewardModels,
    abstract_reward_models,
    load_reward_models,
    reward_scores,
)
from llama2_jax.pipeline.runtime import (
    Inputs,
    Runtime,
    as_folders,
    named_key,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)
from llama2_jax.sharding.processes import from_first
from llama2_jax.stages.finetune import finetune, read_demonstrations
from llama2_jax.text.tokenizer import Tokenizer
from llama2_jax.training.model_folder import load_model


@dataclasses.dataclass(frozen=True)
class Candidates:
    """K answers to each prompt and what the reward models say of them.

    Attributes:
      answers: [prompts][K] sampled answers.
      rewards: the piecewise reward in (0, 1), [prompts, K]; -inf where the answer did not end in time.
      helpfulness, safety: the two models' logits, [prompts, K].
    """

    answers: list[list]
    rewards: np.ndarray
    helpfulness: np.ndarray
    safety: np.ndarray


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Samples, keeps the best, pools the rounds' bags and fine-tunes the starting model on them."""
    tokenizer = Tokenizer.load(inputs["tokenizer"] / "tokenizer.model")
    bag = _fill_bag(config, inputs, tokenizer, runtime)
    write_jsonl(runtime.folder / "bag.jsonl", bag)
    dialogues = {
        "bag": [encode_row(tokenizer, row) for row in bag],
        **read_demonstrations(config.sources, tokenizer, runtime),
    }
    for folder in as_folders(inputs.get("dialogues", ())):
        dialogues[folder.name] = [encode_row(tokenizer, row) for row in read_jsonl(folder / "dialogues.jsonl")]
    results = finetune(config.finetune, inputs["start"], dialogues, tokenizer.bos_id, runtime)
    sweep = read_json(runtime.folder / "sweep.json")
    return {
        "temperature": sweep["chosen"],
        "bag": len(bag),
        "bag_by_round": {str(r): sum(row["round"] == r for row in bag) for r in sorted({row["round"] for row in bag})},
        **{key: sweep[key] for key in ("temperatures", "best_of", "prompts", "prompts_without_finished_answer")},
        **results,
    }


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """Generation and scores, then, when the reward models are freed, the fine-tuning step."""
    policy, rewards = abstract_model("policy", model, mesh), abstract_reward_models(model, mesh)
    programs = (
        *generation(config, model, mesh, policy, rewards, samples_per_prompt=config.samples_per_prompt),
        *reward_scores(model, mesh, rewards, (policy, *rewards)),
        language_model_training(config.finetune, model, mesh),
    )
    return DeviceWork(programs, unit="fine-tuning step", assumptions=(LONGEST_PROMPTS,))


def best_of_all_rounds(rows: Sequence[dict], size: int) -> list[dict]:
    """The rows with the highest rewards, at most `size`.

    The same share is kept of each category of prompts, and of those tagged for safety and the others. A reward model is
    trained to compare answers to one prompt: between kinds of prompts its scores differ for no reason, and the highest
    of all would be those of two or three kinds.
    """
    if len(rows) <= size:
        return list(rows)
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["safety"], row.get("category", "")), []).append(row)
    kept, seen = [], 0
    for group in groups.values():
        # Rounded so that the shares add up to the size.
        begin, seen = seen, seen + len(group)
        share = round(size * seen / len(rows)) - round(size * begin / len(rows))
        kept += sorted(group, key=lambda row: -row["rewards"]["combined"])[:share]
    return kept


def rescored(rows: Sequence[dict], reward_models: RewardModels, tokenizer: Tokenizer) -> list[dict]:
    """Rows of earlier rounds with the rewards of this round's models."""
    sequences = [encode_row(tokenizer, row).tokens for row in rows]
    scores = reward_models.score(sequences, [row["safety"] for row in rows])
    return [{**row, "rewards": scores.row(index)} for index, row in enumerate(rows)]


def _fill_bag(config: ConfigDict, inputs: Inputs, tokenizer: Tokenizer, runtime: Runtime) -> list[dict]:
    """What the model is fine-tuned on. The reward models are held in here alone."""
    reward_models = load_reward_models(inputs, runtime, config.safety_threshold)
    if not from_first(lambda: (runtime.folder / "samples.jsonl").exists()):
        _sample_and_keep(config, inputs, tokenizer, reward_models, runtime)
    bag = read_jsonl(runtime.folder / "samples.jsonl")
    if not inputs.get("bags"):
        return bag
    earlier = [row for folder in as_folders(inputs["bags"]) for row in read_jsonl(folder / "samples.jsonl")]
    anew = map_resumable(
        "earlier rounds",
        len(earlier),
        lambda first, stop: rescored(earlier[first:stop], reward_models, tokenizer),
        runtime,
    )
    return best_of_all_rounds([*bag, *anew], config.bag_size)


def _sample_and_keep(
    config: ConfigDict, inputs: Inputs, tokenizer: Tokenizer, reward_models: RewardModels, runtime: Runtime
) -> None:
    records = read_records(config.prompts, runtime)
    room = runtime.model.max_length - config.max_new_tokens
    records, prompts = encode_prompts(tokenizer, records, room, runtime.stage)
    policy = load_model(inputs["policy"], runtime.mesh).params

    def draw(count: int, temperature: float, purpose: str) -> list[dict]:
        """For each of so many prompts the K answers' rewards, None where one did not end, and the best as a row."""

        def portion(first: int, stop: int) -> list[dict]:
            candidates = _candidates(
                config, policy, prompts, records, range(first, stop), temperature, reward_models, tokenizer, runtime,
                purpose,
            )  # fmt: skip
            best = keep_best(records[first:stop], candidates, temperature, config.round, tokenizer)
            rewards = np.where(np.isfinite(candidates.rewards), candidates.rewards, None).tolist()
            return [{"rewards": of_prompt, "best": row} for of_prompt, row in zip(rewards, best, strict=True)]

        size = shard_size(runtime, config.samples_per_prompt)
        return map_resumable(purpose, min(count, len(prompts)), portion, runtime, size)

    def curve_of(drawn: list[dict]) -> Mapping[str, list[float]]:
        return best_of_curve(np.asarray([row["rewards"] for row in drawn], float))

    curves = {
        temperature: curve_of(draw(config.sweep_prompts, temperature, f"sweep {temperature}"))
        for temperature in config.temperatures
    }
    chosen = max(curves, key=lambda temperature: curves[temperature]["max"][-1])
    drawn = draw(len(prompts), chosen, "samples")
    rows = [row["best"] for row in drawn if row["best"] is not None]
    write_json(
        runtime.folder / "sweep.json",
        {
            "chosen": chosen,
            "temperatures": {str(temperature): curve for temperature, curve in curves.items()},
            "best_of": curve_of(drawn),
            "prompts": len(records),
            "prompts_without_finished_answer": len(records) - len(rows),
        },
    )
    write_jsonl(runtime.folder / "samples.jsonl", rows)


def _candidates(
    config, policy, prompts, records, numbers, temperature, reward_models, tokenizer, runtime, purpose
) -> Candidates:  # fmt: skip
    """Of the prompts with these numbers."""
    prompts, records = prompts[numbers.start : numbers.stop], records[numbers.start : numbers.stop]
    samples = generate(
        runtime.model,
        policy,
        prompts,
        Sampling(temperature, config.top_p, config.max_new_tokens),
        key=named_key(runtime.key, purpose),
        eos_id=tokenizer.eos_id,
        samples_per_prompt=config.samples_per_prompt,
        prompt_ids=numbers,
    )
    sequences = [np.concatenate([prompts[sample.prompt_index], sample.tokens]) for sample in samples]
    scores = reward_models.score(sequences, [records[sample.prompt_index]["safety"] for sample in samples])
    finished = np.asarray([sample.finished for sample in samples])
    shape = (len(prompts), config.samples_per_prompt)
    return Candidates(
        answers=[samples[i * shape[1] : (i + 1) * shape[1]] for i in range(shape[0])],
        rewards=np.where(finished, scores.combined, -np.inf).reshape(shape),
        helpfulness=scores.helpfulness.reshape(shape),
        safety=scores.safety.reshape(shape),
    )


def best_of_curve(rewards: np.ndarray) -> Mapping[str, list[float]]:
    """The mean over prompts of the best and of the median of the first N answers' rewards, N = 1 ... K (figure 7).

    Args:
      rewards: [prompts, K]; what is not finite (an unfinished answer's) counts as 0, the lowest reward.
    """
    rewards = np.where(np.isfinite(rewards), rewards, 0.0)
    counts = range(1, rewards.shape[1] + 1)
    return {
        "max": [float(rewards[:, :n].max(axis=1).mean()) for n in counts],
        "median": [float(np.median(rewards[:, :n], axis=1).mean()) for n in counts],
    }


def keep_best(
    records: Sequence[dict], candidates: Candidates, temperature: float, round_number: int, tokenizer: Tokenizer
) -> list[dict | None]:
    """The best finished answer of each prompt as a samples row; None for a prompt without one."""
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
