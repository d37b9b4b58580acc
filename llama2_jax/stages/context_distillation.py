"""Safety context distillation (section 4.2.4): answers given under a safety preprompt, learnt without it.

Each adversarial prompt is answered twice by the newest model: as it is, and with a preprompt before it. The second
answer is kept, for the prompt without the preprompt, only if the safety reward model prefers it to the first.
"""

from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.inference.generate import Sample, Sampling
from llama2_jax.inference.score import rewards
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.device_programs import LONGEST_PROMPTS, abstract_model, generation, score_tokens
from llama2_jax.pipeline.encoding import encode_prompts, load_tokenizer, read_records
from llama2_jax.pipeline.runtime import Inputs, Runtime, named_key
from llama2_jax.pipeline.sampling import load_policy, sample_resumable
from llama2_jax.pipeline.stage_files import write_jsonl
from llama2_jax.sizing.programs import DeviceWork
from llama2_jax.training.model_folder import load_model


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Writes dialogues.jsonl: samples rows whose answers the safety reward model prefers."""
    tokenizer = load_tokenizer(inputs)
    preprompts = read_records(config.preprompts, runtime, "preprompts")
    prefixed = with_preprompts(read_records(config.prompts, runtime, "prompts"), preprompts, runtime.seed)
    prefixed, prefixed_prompts = encode_prompts(prefixed, config.max_new_tokens, tokenizer, runtime)
    # A prompt that fits with its preprompt fits without it.
    records = [{**record, "messages": record["messages_without_preprompt"]} for record in prefixed]
    records, prompts = encode_prompts(records, config.max_new_tokens, tokenizer, runtime)
    policy = load_policy(inputs["policy"], tokenizer, runtime)
    safety = load_model(inputs["safety"], runtime.mesh).params

    def score(shard: slice, samples: Sequence[Sample]) -> list[dict]:
        # Both answers are scored after the prompt without the preprompt: that is the context they are learnt in.
        pairs = zip(prompts[shard], samples, strict=True)
        scores = rewards(runtime.model, safety, [np.concatenate([prompt, s.tokens]) for prompt, s in pairs])
        return [
            {"tokens": sample.tokens.tolist(), "finished": bool(sample.finished), "safety": float(score)}
            for sample, score in zip(samples, scores, strict=True)
        ]

    def answer(asked: list[list[int]], purpose: str) -> list[dict]:
        sampling = Sampling(config.temperature, config.top_p, config.max_new_tokens)
        return sample_resumable(purpose, policy, asked, sampling, named_key(runtime.key, purpose), score, runtime)

    plain, distilled = answer(prompts, "plain"), answer(prefixed_prompts, "with preprompt")
    rows = [
        {
            "messages": record["messages"],
            "response": tokenizer.decode(with_it["tokens"]),
            "response_tokens": with_it["tokens"],
            "preprompt": record["preprompt"],
            "category": record.get("category", ""),
            "rewards": {"safety": with_it["safety"], "safety_without_preprompt": without["safety"]},
        }
        for record, with_it, without in zip(records, distilled, plain, strict=True)
        if with_it["finished"] and with_it["safety"] > without["safety"]
    ]
    write_jsonl(runtime.folder / "dialogues.jsonl", rows)
    return {
        "prompts": len(records),
        "kept": len(rows),
        "safety_reward_without_preprompt": float(np.mean([row["safety"] for row in plain])),
        "safety_reward_with_preprompt": float(np.mean([row["safety"] for row in distilled])),
    }


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """Generation and the safety model's scores, both models on the devices throughout."""
    policy, safety = abstract_model("policy", model, mesh), abstract_model("safety", model, mesh, "scalar")
    programs = (
        *generation(config, model, mesh, policy, (safety,)),
        score_tokens("safety scores", model, mesh, safety, (policy,)),
    )
    return DeviceWork(programs, assumptions=(LONGEST_PROMPTS,))


def with_preprompts(records: Sequence[dict], preprompts: Sequence[dict], seed: int) -> list[dict]:
    """Puts a safety preprompt in the system message of each prompt.

    A preprompt with a category is an answer template, used for that risk category only (section 4.2.4); one without
    serves all.

    Raises:
      ValueError: if no preprompt serves a prompt's category.
    """
    generator = np.random.default_rng(seed)
    chosen = []
    for record in records:
        fitting = [p["preprompt"] for p in preprompts if p.get("category") in (None, "", record.get("category"))]
        if not fitting:
            raise ValueError(
                f"no preprompt serves the category {record.get('category')!r}; give one without a category"
            )
        preprompt = fitting[generator.integers(len(fitting))]
        messages = record["messages"]
        if messages[0]["role"] == "system":
            system, turns = f"{preprompt}\n{messages[0]['content']}", messages[1:]
        else:
            system, turns = preprompt, messages
        chosen.append({
            **record,
            "preprompt": preprompt,
            "messages_without_preprompt": messages,
            "messages": [{"role": "system", "content": system}, *turns],
        })  # fmt: skip
    return chosen
