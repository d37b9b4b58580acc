"""Rejection sampling (section 3.2.3): K answers a prompt, the single best kept, fine-tuning on what was kept.

Up to V3 the bag is this round's; from V4 on the best answers of all rounds join, scored again by the newest models.
Writes sweep.json (how the temperature was chosen), samples.jsonl (this round's best answers), bag.jsonl (what was
trained on) and the fine-tuned model.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.inference.generate import Sample, Sampling
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.best_of_n import best_of_all_rounds, best_of_curve, keep_best, rescored, score_candidates
from llama2_jax.pipeline.device_programs import LONGEST_PROMPTS, abstract_model, generation, language_model_training
from llama2_jax.pipeline.encoding import encode_row, load_tokenizer, read_prompts, source_weights
from llama2_jax.pipeline.finetuning import finetune, read_demonstrations
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
    as_folders,
    read_all_jsonl,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)
from llama2_jax.sharding.processes import from_first
from llama2_jax.sizing.programs import DeviceWork
from llama2_jax.text.tokenizer import Tokenizer


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Samples, keeps the best, pools the rounds' bags and fine-tunes the starting model on them."""
    tokenizer = load_tokenizer(inputs)
    earlier = as_folders(inputs.get("dialogues", ()))
    if taken := sorted({"bag", *(folder.name for folder in earlier)} & set(config.sources)):
        raise ValueError(f"{runtime.stage}: a source may not be named {', '.join(taken)}: other dialogues are")
    # Before anything is sampled: a bad line would stop the stage after hours.
    demonstrations = read_demonstrations(config.sources, tokenizer, runtime)
    bag = _fill_bag(config, inputs, tokenizer, runtime)
    write_jsonl(runtime.folder / "bag.jsonl", bag)
    dialogues = {"bag": [encode_row(tokenizer, row) for row in bag], **demonstrations}
    for folder in earlier:
        dialogues[folder.name] = [encode_row(tokenizer, row) for row in read_jsonl(folder / "dialogues.jsonl")]
    weights = source_weights(config.sources)
    results = finetune(config.finetune, inputs["start"], dialogues, tokenizer.bos_id, runtime, weights=weights)
    sweep = read_json(runtime.folder / "sweep.json")
    return {
        "temperature": sweep["chosen"],
        "bag": len(bag),
        "bag_by_round": {str(r): sum(row["round"] == r for row in bag) for r in sorted({row["round"] for row in bag})},
        **{key: sweep[key] for key in ("temperatures", "best_of", "prompts", "prompts_without_finished_answer")},
        **results,
    }


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """Generation and scores, then, once the reward models are freed, the fine-tuning step."""
    policy, rewards = abstract_model("policy", model, mesh), abstract_reward_models(model, mesh)
    programs = (
        *generation(config, model, mesh, policy, rewards, samples_per_prompt=config.samples_per_prompt),
        *reward_scores(model, mesh, rewards, (policy, *rewards)),
        language_model_training(config.finetune, model, mesh),
    )
    return DeviceWork(programs, unit="fine-tuning step", assumptions=(LONGEST_PROMPTS,))


def _fill_bag(config: ConfigDict, inputs: Inputs, tokenizer: Tokenizer, runtime: Runtime) -> list[dict]:
    """What the model is fine-tuned on. The reward models are on the devices only in here."""
    reward_models = load_reward_models(inputs, runtime, piecewise(config.safety_threshold))
    if not from_first(lambda: (runtime.folder / "samples.jsonl").exists()):
        _sample_and_keep(config, inputs, tokenizer, reward_models, runtime)
    bag = read_jsonl(runtime.folder / "samples.jsonl")
    if not inputs.get("bags"):
        return bag
    earlier = read_all_jsonl(inputs["bags"], "samples.jsonl")
    scored_again = map_resumable(
        "earlier rounds",
        len(earlier),
        lambda first, stop: rescored(earlier[first:stop], reward_models, tokenizer),
        runtime,
    )
    return best_of_all_rounds([*bag, *scored_again], config.bag_size)


def _sample_and_keep(
    config: ConfigDict, inputs: Inputs, tokenizer: Tokenizer, reward_models: RewardModels, runtime: Runtime
) -> None:
    """Chooses the round's temperature on some prompts, then samples all and keeps the best."""
    records, prompts = read_prompts(config.prompts, config.max_new_tokens, tokenizer, runtime)
    policy = load_policy(inputs["policy"], tokenizer, runtime)

    def draw(count: int, temperature: float, purpose: str) -> list[dict]:
        """For each of the first prompts the K answers' rewards, None if one did not end, and the best as a row."""

        def rows(shard: slice, samples: Sequence[Sample]) -> list[dict]:
            candidates = score_candidates(records[shard], prompts[shard], samples, reward_models)
            best = keep_best(records[shard], candidates, temperature, config.round, tokenizer)
            rewards = np.where(np.isfinite(candidates.rewards), candidates.rewards, None).tolist()
            return [{"rewards": of_prompt, "best": row} for of_prompt, row in zip(rewards, best, strict=True)]

        return sample_resumable(
            purpose,
            policy,
            prompts[:count],
            Sampling(temperature, config.top_p, config.max_new_tokens),
            named_key(runtime.key, purpose),
            rows,
            runtime,
            config.samples_per_prompt,
        )

    curves = {
        temperature: _curve(draw(config.sweep_prompts, temperature, f"sweep {temperature}"))
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
            "best_of": _curve(drawn),
            "prompts": len(records),
            "prompts_without_finished_answer": len(records) - len(rows),
        },
    )
    write_jsonl(runtime.folder / "samples.jsonl", rows)


def _curve(drawn: Sequence[Mapping]) -> Mapping[str, list[float]]:
    return best_of_curve(np.asarray([row["rewards"] for row in drawn], float))
