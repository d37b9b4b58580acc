"""Safety context distillation (section 4.2.4): answers given under a safety preprompt, learnt without it.

Each adversarial prompt is answered twice by the newest model: as it is, and with a preprompt before it: the answer
template of the prompt's risk category, or a generic one where its category has no template. The second answer is kept,
for the prompt without the preprompt, only if the safety reward model prefers it to the first.

Some prompts that have a template are answered under a generic preprompt too, to compare the two kinds (figure 16);
nothing learns from these answers.
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.evaluation.preprompt_gains import PrepromptAnswer, preprompt_gains
from llama2_jax.inference.generate import Sample, Sampling
from llama2_jax.inference.score import rewards
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.device_programs import LONGEST_PROMPTS, abstract_model, generation, score_tokens
from llama2_jax.pipeline.encoding import encode_prompts, load_tokenizer, longest_prompt, read_records
from llama2_jax.pipeline.runtime import Inputs, Runtime, named_key, stable_hash
from llama2_jax.pipeline.sampling import load_policy, sample_resumable
from llama2_jax.pipeline.stage_files import write_jsonl
from llama2_jax.sizing.programs import DeviceWork
from llama2_jax.text.dialogue import encode_prompt
from llama2_jax.text.tokenizer import Tokenizer
from llama2_jax.training.model_folder import load_model


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Writes dialogues.jsonl: samples rows whose answers the safety reward model prefers.

    The results' `preprompts` compare the kinds of preprompts (evaluation/preprompt_gains.py).
    """
    tokenizer = load_tokenizer(inputs)
    preprompts = read_records(config.preprompts, runtime, "preprompts")
    prefixed = with_preprompts(read_records(config.prompts, runtime, "prompts"), preprompts, runtime.seed)
    prefixed, prefixed_prompts = encode_prompts(prefixed, config.max_new_tokens, tokenizer, runtime)
    # A prompt that fits with its preprompt fits without it.
    records = [{**record, "messages": record["messages_without_preprompt"]} for record in prefixed]
    records, prompts = encode_prompts(records, config.max_new_tokens, tokenizer, runtime)
    policy = load_policy(inputs["policy"], tokenizer, runtime)
    safety = load_model(inputs["safety"], runtime.mesh, "scalar").params

    def answer(asked: list[list[int]], without: list[list[int]], purpose: str) -> list[dict]:
        def score(shard: slice, samples: Sequence[Sample]) -> list[dict]:
            # All answers are scored after the prompt without the preprompt: that is the context they are learnt in.
            pairs = zip(without[shard], samples, strict=True)
            scores = rewards(runtime.model, safety, [np.concatenate([prompt, s.tokens]) for prompt, s in pairs])
            return [
                {"tokens": sample.tokens.tolist(), "finished": bool(sample.finished), "safety": float(score)}
                for sample, score in zip(samples, scores, strict=True)
            ]

        sampling = Sampling(config.temperature, config.top_p, config.max_new_tokens)
        return sample_resumable(purpose, policy, asked, sampling, named_key(runtime.key, purpose), score, runtime)

    plain, distilled = answer(prompts, prompts, "plain"), answer(prefixed_prompts, prompts, "with preprompt")
    templates = [index for index, record in enumerate(prefixed) if record["with_template"]][: config.compared_prompts]
    compared = with_generic_preprompts(
        {index: records[index] for index in templates}, preprompts, config.max_new_tokens, tokenizer, runtime
    )
    generic = answer([*compared.values()], [prompts[index] for index in compared], "with generic preprompt")
    rows = _kept(records, plain, distilled, tokenizer)
    write_jsonl(runtime.folder / "dialogues.jsonl", rows)
    unfinished = sum(not row["finished"] for row in distilled)
    if not rows:
        logging.warning(
            "%s keeps nothing: of %d answers with a preprompt %d do not end within %d tokens, and the safety model "
            "prefers none of the others; fine-tuning learns no context distillation",
            runtime.stage, len(records), unfinished, config.max_new_tokens,
        )  # fmt: skip
    return {
        "prompts": len(records),
        "with_template": sum(record["with_template"] for record in records),
        "left_out_unfinished": unfinished,
        "kept": len(rows),
        "safety_reward_without_preprompt": float(np.mean([row["safety"] for row in plain])),
        "safety_reward_with_preprompt": float(np.mean([row["safety"] for row in distilled])),
        "preprompts": preprompt_gains(
            [
                *_beside_plain(records, plain, dict(enumerate(distilled))),
                *_beside_plain(records, plain, dict(zip(compared, generic, strict=True)), "generic"),
            ]
        ),
    }


def _kept(
    records: Sequence[Mapping], plain: Sequence[Mapping], distilled: Sequence[Mapping], tokenizer: Tokenizer
) -> list[dict]:
    """Returns samples rows of the answers under a preprompt that ended and that the safety model prefers."""
    return [
        {
            "messages": record["messages"],
            "response": tokenizer.decode(with_it["tokens"]),
            "response_tokens": with_it["tokens"],
            "preprompt": record["preprompt"],
            "safety": record["safety"],
            "category": record.get("category", ""),
            "rewards": {"safety": with_it["safety"], "safety_without_preprompt": without["safety"]},
        }
        for record, with_it, without in zip(records, distilled, plain, strict=True)
        if with_it["finished"] and with_it["safety"] > without["safety"]
    ]


def _beside_plain(
    records: Sequence[Mapping], plain: Sequence[Mapping], answered: Mapping[int, Mapping], kind: str = ""
) -> list[PrepromptAnswer]:
    """Returns answers under preprompts, by their prompts' index, beside those without; a kind in place of their own."""
    return [
        PrepromptAnswer(
            prompt=index,
            category=records[index].get("category", ""),
            kind=kind or ("template" if records[index]["with_template"] else "generic"),
            finished=row["finished"],
            before=plain[index]["safety"],
            after=row["safety"],
        )
        for index, row in answered.items()
    ]


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """Generation and the safety model's scores, both models on the devices throughout."""
    policy, safety = abstract_model("policy", model, mesh), abstract_model("safety", model, mesh, "scalar")
    programs = (
        *generation(config, model, mesh, policy, (safety,)),
        score_tokens("safety scores", model, mesh, safety, (policy,)),
    )
    return DeviceWork(programs, assumptions=(LONGEST_PROMPTS,))


def with_generic_preprompts(
    records: Mapping[int, Mapping],
    preprompts: Sequence[Mapping],
    max_new_tokens: int,
    tokenizer: Tokenizer,
    runtime: Runtime,
) -> dict[int, list[int]]:
    """Returns prompts by their index, encoded, each under a generic preprompt: one without a category.

    There is none where no preprompt is generic; a prompt that leaves no room for an answer is left out.
    """
    generic = [one for one in preprompts if not one.get("category")]
    if not generic:
        return {}
    prefixed = with_preprompts([*records.values()], generic, runtime.seed)
    encoded = {index: encode_prompt(tokenizer, one["messages"]) for index, one in zip(records, prefixed, strict=True)}
    longest = longest_prompt(max_new_tokens, runtime)
    return {index: prompt for index, prompt in encoded.items() if len(prompt) <= longest}


def with_preprompts(records: Sequence[Mapping], preprompts: Sequence[Mapping], seed: int) -> list[dict]:
    """Puts a safety preprompt in the system message of each prompt.

    A prompt whose category has answer templates gets one of these; any other prompt, whatever its category, gets one of
    the generic preprompts, those without a category. The draw depends on the seed and the prompt, not on its place
    among the others.

    Returns:
      The records, each with `preprompt`, `with_template` (whether that is a template) and
      `messages_without_preprompt`.

    Raises:
      ValueError: if a record has no `preprompt`, or a prompt's category has no template and there is no generic one.
    """
    by_category: dict[str, list[str]] = {}
    for record in preprompts:
        if not isinstance(record.get("preprompt"), str) or not record["preprompt"].strip():
            raise ValueError(f"a safety preprompt has the field preprompt {record.get('preprompt')!r}; wanted a text")
        by_category.setdefault(record.get("category") or "", []).append(record["preprompt"])
    chosen = []
    for record in records:
        category = record.get("category") or ""
        fitting = by_category.get(category) or by_category.get("")
        if not fitting:
            raise ValueError(
                f"there is no answer template for the category {category!r}, and no preprompt without a category to "
                f"take in its place; there are templates for {', '.join(by_category) or 'none'}"
            )
        messages = record["messages"]
        generator = np.random.default_rng(stable_hash(json.dumps([seed, messages])))
        preprompt = fitting[generator.integers(len(fitting))]
        if messages[0]["role"] == "system":
            system, turns = f"{preprompt}\n{messages[0]['content']}", messages[1:]
        else:
            system, turns = preprompt, messages
        chosen.append({
            **record,
            "preprompt": preprompt,
            "with_template": bool(category) and category in by_category,
            "messages_without_preprompt": messages,
            "messages": [{"role": "system", "content": system}, *turns],
        })  # fmt: skip
    return chosen
