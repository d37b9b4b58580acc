"""Rejection sampling (section 3.2.3): K answers a prompt, the single best kept, fine-tuning on what was kept.

Each prompt is sampled once, however often the sources repeat it. Up to V3 the bag is this round's (`bag`: last_round);
from V4 on (all_rounds) the best answers of the earlier rounds, the input `bags`, join, scored again by the newest
models, with one answer to a prompt: the best of all rounds.
Writes sweep.json (how the temperature was chosen), samples.jsonl (this round's best answers), bag.jsonl (what was
trained on) and the fine-tuned model.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Float
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.evaluation.best_of_curve import best_of_curve
from llama2_jax.inference.generate import Sample, Sampling
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.best_of_n import (
    best_of_all_rounds,
    best_of_each_prompt,
    distinct_prompts,
    keep_best,
    rescored,
    score_candidates,
)
from llama2_jax.pipeline.device_programs import LONGEST_PROMPTS, abstract_model, generation, language_model_training
from llama2_jax.pipeline.encoding import encode_row, load_tokenizer, read_prompts, source_weights
from llama2_jax.pipeline.finetuning import finetune, read_demonstrations, read_sampled
from llama2_jax.pipeline.model_training import check_schedule
from llama2_jax.pipeline.resumable import map_resumable
from llama2_jax.pipeline.reward_models import (
    RewardModels,
    abstract_reward_models,
    load_reward_models,
    piecewise,
    reward_scores,
)
from llama2_jax.pipeline.runtime import Inputs, Runtime, named_key
from llama2_jax.pipeline.sampling import load_policy, sample_resumable
from llama2_jax.pipeline.stage_files import (
    read_all_jsonl,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)
from llama2_jax.pipeline.stage_values import LAST_ROUND
from llama2_jax.pipeline.temperature_sweep import choose_temperature, draw_sweep_prompts, needed_standard_errors
from llama2_jax.sharding.processes import from_first
from llama2_jax.sizing.programs import DeviceWork
from llama2_jax.text.tokenizer import Tokenizer

# What the stage's results have of sweep.json.
SWEEP_RESULTS = (
    "temperatures", "temperature_rewards", "needed_standard_errors", "sweep_prompts", "best_of", "prompts",
    "repeated_prompts_left_out", "prompts_without_finished_answer",
)  # fmt: skip


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Samples, keeps the best, pools the rounds' bags and fine-tunes the starting model on them.

    Raises:
      ValueError: if no answer ended, in this round or an earlier one, and there are no other dialogues to train on.
    """
    tokenizer = load_tokenizer(inputs)
    sampled = read_sampled(inputs.get("dialogues", ()), "dialogues.jsonl", tokenizer)
    if taken := sorted({"bag", *sampled} & set(config.sources)):
        raise ValueError(f"{runtime.stage}: a source may not be named {', '.join(taken)}: other dialogues are")
    # Before anything is sampled: a bad line would stop the stage after hours.
    demonstrations = read_demonstrations(config.sources, tokenizer, runtime)
    bag, repeats = _fill_bag(config, inputs, tokenizer, runtime)
    write_jsonl(runtime.folder / "bag.jsonl", bag)
    dialogues = {"bag": [encode_row(tokenizer, row) for row in bag], **demonstrations, **sampled}
    sweep = read_json(runtime.folder / "sweep.json")
    if not any(dialogues.values()):
        raise ValueError(_nothing_finished(config, sweep["prompts"], inputs, runtime.stage))
    weights = source_weights(config.sources)
    results = finetune(config.finetune, inputs["start"], dialogues, tokenizer.bos_id, runtime, weights=weights)
    return {
        "temperature": sweep["chosen"],
        "bag": len(bag),
        # Of all rounds, with better answers to the same prompts in the bag.
        "bag_repeats_left_out": repeats,
        "bag_by_round": {str(r): sum(row["round"] == r for row in bag) for r in sorted({row["round"] for row in bag})},
        **{key: sweep[key] for key in SWEEP_RESULTS},
        **results,
    }


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if the sweep or the bag is larger than what the prompts can give, or the training cannot be."""
    # How many answers will be kept is not known.
    check_schedule(config.finetune, math.inf, config.finetune.batch_size)
    prompts = count(config.prompts)
    if config.sweep_prompts > prompts:
        raise ValueError(f"sweep_prompts={config.sweep_prompts} of at most {prompts} prompts: sweep fewer")
    if config.sweep_samples_per_prompt < config.samples_per_prompt:
        raise ValueError(
            f"sweep_samples_per_prompt={config.sweep_samples_per_prompt}, but the round keeps the best of "
            f"samples_per_prompt={config.samples_per_prompt}: the sweep compares as many, so give it at least those"
        )
    if config.bag != LAST_ROUND and (bags := inputs.get("bags", ())):
        # How many samples an imported round has is not known.
        pool = prompts + sum(count(bag.prompts) if "prompts" in bag else math.inf for bag in bags)
        if config.bag_size > pool:
            raise ValueError(
                f"bag_size={config.bag_size} of at most {pool} answers, the best one to each prompt of "
                f"{len(bags) + 1} rounds: give more prompts, or bag_size=0 to keep all"
            )


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """Generation and scores, then, once the reward models are freed, the fine-tuning step."""
    policy, rewards = abstract_model("policy", model, mesh), abstract_reward_models(model, mesh)
    programs = (
        *generation(config, model, mesh, policy, rewards, samples_per_prompt=config.samples_per_prompt),
        *reward_scores(model, mesh, rewards, (policy, *rewards)),
        language_model_training(config.finetune, model, mesh),
    )
    return DeviceWork(programs, unit="fine-tuning step", assumptions=(LONGEST_PROMPTS,))


def _fill_bag(config: ConfigDict, inputs: Inputs, tokenizer: Tokenizer, runtime: Runtime) -> tuple[list[dict], int]:
    """What the model is fine-tuned on, and how many answers were left out for a better one to the same prompt.

    The reward models are on the devices only in here.
    """
    reward_models = load_reward_models(inputs, runtime, piecewise(config.safety_threshold))
    if not from_first(lambda: (runtime.folder / "samples.jsonl").exists()):
        _sample_and_keep(config, inputs, tokenizer, reward_models, runtime)
    bag = read_jsonl(runtime.folder / "samples.jsonl")
    if config.bag == LAST_ROUND or not inputs.get("bags"):
        return bag, 0
    earlier = read_all_jsonl(inputs["bags"], "samples.jsonl")
    scored_again = map_resumable(
        "earlier rounds",
        len(earlier),
        lambda first, stop: rescored(earlier[first:stop], reward_models, tokenizer),
        runtime,
    )
    joined = [*bag, *scored_again]
    distinct = best_of_each_prompt(joined, config.bag_answers_per_prompt)
    return best_of_all_rounds(distinct, config.bag_size), len(joined) - len(distinct)


def _sample_and_keep(
    config: ConfigDict, inputs: Inputs, tokenizer: Tokenizer, reward_models: RewardModels, runtime: Runtime
) -> None:
    """Chooses the round's temperature on some prompts, then samples all and keeps the best."""
    read = read_prompts(config.prompts, config.max_new_tokens, tokenizer, runtime)
    records, prompts = distinct_prompts(*read)
    policy = load_policy(inputs["policy"], tokenizer, runtime)

    def draw(indices: Sequence[int], temperature: float, name: str, randomness: str, answers: int) -> list[dict]:
        """For each of these prompts its answers' rewards, None if one did not end, and the best as a row."""
        asked, ids = [records[index] for index in indices], [prompts[index] for index in indices]

        def rows(shard: slice, samples: Sequence[Sample]) -> list[dict]:
            candidates = score_candidates(asked[shard], ids[shard], samples, reward_models)
            best = keep_best(asked[shard], candidates, temperature, config.round, tokenizer)
            rewards = np.where(np.isfinite(candidates.rewards), candidates.rewards, None).tolist()
            return [{"rewards": of_prompt, "best": row} for of_prompt, row in zip(rewards, best, strict=True)]

        return sample_resumable(
            name,
            policy,
            ids,
            Sampling(temperature, config.top_p, config.max_new_tokens),
            named_key(runtime.key, randomness),
            rows,
            runtime,
            answers,
        )

    swept = draw_sweep_prompts(records, config.sweep_prompts, runtime.seed)
    # The same randomness at every temperature: what is compared differs by the temperature alone.
    rewards = {
        t: _rewards(draw(swept, t, f"sweep {t}", "sweep", config.sweep_samples_per_prompt)) for t in config.temperatures
    }
    chosen, temperature_rewards = choose_temperature(rewards, config.samples_per_prompt, config.sweep_error_rate)
    drawn = draw(range(len(prompts)), chosen, "samples", "samples", config.samples_per_prompt)
    rows = [row["best"] for row in drawn if row["best"] is not None]
    if not rows:
        logging.warning(_nothing_finished(config, len(prompts), inputs, runtime.stage))
    write_json(
        runtime.folder / "sweep.json",
        {
            "chosen": chosen,
            "temperatures": {str(temperature): best_of_curve(found) for temperature, found in rewards.items()},
            "temperature_rewards": temperature_rewards,
            "needed_standard_errors": needed_standard_errors(len(swept), len(rewards), config.sweep_error_rate),
            "sweep_prompts": len(swept),
            "best_of": best_of_curve(_rewards(drawn)),
            "prompts": len(records),
            "repeated_prompts_left_out": len(read[0]) - len(records),
            "prompts_without_finished_answer": len(records) - len(rows),
        },
    )
    write_jsonl(runtime.folder / "samples.jsonl", rows)


def _rewards(drawn: Sequence[Mapping]) -> Float[np.ndarray, "prompts K"]:
    """The rewards of drawn answers, NaN for one that did not end."""
    return np.asarray([row["rewards"] for row in drawn], float)


def _nothing_finished(config: ConfigDict, prompts: int, inputs: Inputs, stage: str) -> str:
    return (
        f"{stage}: {prompts * config.samples_per_prompt} answers to {prompts} prompts were sampled, and none of them "
        f"ended with EOS within max_new_tokens={config.max_new_tokens}, so the round has no answer to fine-tune on. If "
        f"answers need more room, raise config.answer_tokens (or config.{stage}.max_new_tokens); if "
        f"{inputs['policy'].name!r} has not learnt to end its answers, fine-tune it longer"
    )
