"""Evaluation (sections 3.4 and 4.4): all versions answer the same prompts; a judge and the reward models look at them.

Writes evaluation.json and answers_<version>.jsonl.
"""

import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.sources import load_function
from llama2_jax.evaluation.measures import to_json
from llama2_jax.evaluation.verdicts import mean_known, summarise, utilities
from llama2_jax.evaluation.win_rate import win_rate
from llama2_jax.inference.generate import Sampling, generate
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.conversations import converse_resumable
from llama2_jax.pipeline.device_programs import LONGEST_PROMPTS, DeviceWork, abstract_model, generation
from llama2_jax.pipeline.encoding import encode_prompts, read_records
from llama2_jax.pipeline.resumable import map_resumable
from llama2_jax.pipeline.reward_models import (
    abstract_reward_models,
    annotator_scores,
    load_reward_models,
    reward_scores,
)
from llama2_jax.pipeline.runtime import Inputs, Runtime, configured_function, named_key, write_json, write_jsonl
from llama2_jax.text.tokenizer import Tokenizer
from llama2_jax.training.model_folder import load_model


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Evaluates the versions in order; win rates are over the baseline."""
    tokenizer = Tokenizer.load(inputs["tokenizer"] / "tokenizer.model")
    records = read_records(config.prompts, runtime)
    records, prompts = encode_prompts(
        tokenizer, records, runtime.model.max_length - config.max_new_tokens, runtime.stage
    )
    dialogues = read_records(config.instruction_dialogues, runtime)
    reward_models = load_reward_models(inputs, runtime, safety_threshold=0.15)
    judge = configured_function(config.judge, inputs, runtime)
    measures = load_function(config.get("measures", "llama2_jax.evaluation.measures.MEASURES"))

    def measure(name: str, folder: epath.Path) -> dict:
        params = load_model(folder, runtime.mesh).params
        rows = _answer(name, config, params, records, prompts, reward_models, tokenizer, runtime)
        verdicts = judge(rows)
        write_jsonl(
            runtime.folder / f"answers_{name}.jsonl",
            [{**row, "verdict": verdict} for row, verdict in zip(rows, verdicts, strict=True)],
        )
        return {
            "utilities": utilities(records, verdicts),
            **summarise(records, verdicts, measures),
            "instruction_kept": _instruction_kept(name, config, params, dialogues, tokenizer, judge, runtime),
            "reward_helpfulness": float(np.mean([row["rewards"]["helpfulness"] for row in rows])),
            "reward_safety": float(np.mean([row["rewards"]["safety"] for row in rows])),
            "answer_tokens": float(np.mean([row["answer_tokens"] for row in rows])),
        }

    folders = dict(zip(config.versions, inputs["models"], strict=True))
    measured = map_resumable(
        "versions", len(folders), lambda first, _: [measure(*list(folders.items())[first])], runtime, size=1
    )
    ours = {name: version.pop("utilities") for name, version in zip(folders, measured, strict=True)}
    versions = [
        {"name": name, **version, **_win_rate(ours[name], ours[config.baseline], records)}
        for name, version in zip(folders, measured, strict=True)
    ]
    write_json(
        runtime.folder / "evaluation.json",
        {"versions": versions, "prompts": len(records), "measures": to_json(measures)},
    )
    return {"versions": versions}


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """Generation by one version after the other and scores by the reward models, held throughout, and by a judge."""
    version, rewards = abstract_model("version", model, mesh), abstract_reward_models(model, mesh)
    programs = (
        *generation(config, model, mesh, version, rewards),
        *reward_scores(model, mesh, rewards, (version, *rewards)),
        *annotator_scores(config, model, mesh, (version, *rewards)),
    )
    assumptions = (LONGEST_PROMPTS, f"of what the judge {config.judge.function} holds its models are counted")
    return DeviceWork(programs, assumptions=assumptions)


def _win_rate(ours: list[float], baseline: list[float], records: list[dict]) -> dict[str, float | None]:
    """Returns win rates over the baseline: over all prompts, and over helpfulness and safety prompts alone."""
    rates = {"win_rate_vs_sft": win_rate(ours, baseline)}
    for kind, tagged in (("helpfulness", False), ("safety", True)):
        selected = [index for index, record in enumerate(records) if record["safety"] == tagged]
        rates[f"{kind}_win_rate_vs_sft"] = win_rate([ours[i] for i in selected], [baseline[i] for i in selected])
    return {name: rate.rate for name, rate in rates.items()} | {
        "win_rate_standard_error": rates["win_rate_vs_sft"].standard_error
    }


def _answer(name, config, params, records, prompts, reward_models, tokenizer, runtime) -> list[dict]:
    """A version's answers with what the reward models say of them."""

    def answer(first: int, stop: int) -> list[dict]:
        samples = generate(
            runtime.model,
            params,
            prompts[first:stop],
            Sampling(config.temperature, config.top_p, config.max_new_tokens),
            key=named_key(runtime.key, "answers"),
            eos_id=tokenizer.eos_id,
            prompt_ids=range(first, stop),
        )
        rows = [
            {
                "messages": record["messages"],
                "safety": record["safety"],
                "category": record.get("category", ""),
                "response": tokenizer.decode(sample.tokens).strip(),
                "finished": bool(sample.finished),
                "answer_tokens": len(sample.tokens),
                "tokens": [*prompt, *sample.tokens.tolist()],
            }
            for record, prompt, sample in zip(records[first:stop], prompts[first:stop], samples, strict=True)
        ]
        scores = reward_models.score([row["tokens"] for row in rows], [row["safety"] for row in rows])
        return [{**row, "rewards": scores.row(index)} for index, row in enumerate(rows)]

    return map_resumable(f"{name} answers", len(prompts), answer, runtime)


def _instruction_kept(name, config, params, dialogues, tokenizer, judge, runtime) -> dict[str, float | None]:
    """The share of answers that keep the system message's instruction, by turn (section 3.3, table 30)."""
    if not dialogues:
        return {str(turn): None for turn in config.instruction_turns}
    conversations = converse_resumable(
        f"{name} dialogues",
        params,
        tokenizer,
        [record["turns"] for record in dialogues],
        config,
        named_key(runtime.key, "instructions"),
        runtime,
        systems=[record["messages"][0]["content"] for record in dialogues],
    )
    kept = {}
    for turn in config.instruction_turns:
        rows = [conversation.row(turn) for conversation in conversations if len(conversation.answers) >= turn]
        kept[str(turn)] = mean_known(judge(rows), "instruction_kept") if rows else None
    return kept
