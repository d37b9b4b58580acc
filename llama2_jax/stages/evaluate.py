"""Evaluation (sections 3.4 and 4.4): all versions answer the same prompts; a judge and the reward models look at them.

A general reward model, if the stage has one, scores them too: where it falls on harmless prompts from one version to
the next while the combined reward rises, a warning says so (section 3.4.1).

A version may be asked several times for each prompt, `answers_per_prompt`, and the answer with the best reward is its
answer (best of N); in dialogues each turn has one.

Writes evaluation.json and answers_<version>.jsonl.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.data.sources import load_function
from llama2_jax.evaluation.kept_instructions import kept_by_turn, known_and_new
from llama2_jax.evaluation.measures import Measure, to_json
from llama2_jax.evaluation.over_optimisation import Rewards
from llama2_jax.evaluation.paired import mean_and_error
from llama2_jax.evaluation.reward_quality import COMPARED_ON, reward_quality
from llama2_jax.evaluation.safety_summary import reward_differences, safety_summary
from llama2_jax.evaluation.verdicts import (
    by_category,
    count_judged,
    mean_known,
    not_judged,
    summarise,
    utilities,
)
from llama2_jax.inference.generate import Sample, Sampling
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.best_of_n import best_of_each
from llama2_jax.pipeline.conversations import Conversation, converse_resumable
from llama2_jax.pipeline.device_programs import LONGEST_PROMPTS, TURN_AFTER_TURN, abstract_model, generation
from llama2_jax.pipeline.encoding import load_tokenizer, read_prompts, read_records
from llama2_jax.pipeline.general_reward import (
    GeneralReward,
    abstract_general_reward,
    changes_of_versions,
    load_general_reward,
)
from llama2_jax.pipeline.instruction_attention import instruction_attention, instruction_attention_work
from llama2_jax.pipeline.judged_answers import Judge, check_baseline, compare_in_order, load_judge, with_win_rates
from llama2_jax.pipeline.resumable import map_resumable
from llama2_jax.pipeline.reward_models import (
    RewardModels,
    abstract_reward_models,
    annotator_scores,
    load_reward_models,
    piecewise,
    reward_scores,
)
from llama2_jax.pipeline.runtime import Inputs, Runtime, named_key
from llama2_jax.pipeline.sampling import Policy, load_policy, sample_resumable
from llama2_jax.pipeline.stage_files import write_json, write_jsonl
from llama2_jax.sizing.programs import DeviceWork


@dataclasses.dataclass(frozen=True)
class Examination:
    """What every version answers, and who looks at the answers.

    Attributes:
      records, prompts: the prompts, with `safety`, `category` and `seen`, and their token ids.
      dialogues: dialogues with an instruction in their system message; `seen` if training uses its words.
      reward_models: the newest ones.
      general: the general reward model; None if there is none.
      judge: rows with `messages` and `response` -> a verdict for each, checked.
      measures: what is made of the verdicts.
    """

    records: Sequence[dict]
    prompts: Sequence[Sequence[int]]
    dialogues: Sequence[dict]
    reward_models: RewardModels
    general: GeneralReward | None
    judge: Judge
    measures: Sequence[Measure]


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Evaluates the versions in order; win rates are over the baseline, and one over the version before.

    evaluation.json also has, as `reward_quality`, how the reward models' scores go with the judge's verdicts.
    """
    tokenizer = load_tokenizer(inputs)
    measures = load_function(config.get("measures", "llama2_jax.evaluation.measures.MEASURES"))
    examination = Examination(
        *read_prompts(config.prompts, config.max_new_tokens, tokenizer, runtime),
        dialogues=read_records(config.instruction_dialogues, runtime, "instructed"),
        reward_models=load_reward_models(inputs, runtime, piecewise(config.safety_threshold)),
        general=load_general_reward(inputs, runtime),
        judge=load_judge(config.judge, inputs, runtime, measures),
        measures=measures,
    )
    folders = list(zip(config.versions, inputs["models"], strict=True))

    def measure(first: int, _: int) -> list[dict]:
        name, folder = folders[first]
        return [_measure(name, config, load_policy(folder, tokenizer, runtime), examination, runtime)]

    measured = map_resumable("versions", len(folders), measure, runtime, size=1)
    records = examination.records
    ours, rewards, verdicts = (
        {name: version.pop(field) for name, version in zip(config.versions, measured, strict=True)}
        for field in ("utilities", "rewards", "verdicts")
    )
    for name, version in zip(config.versions, measured, strict=True):
        version["reward_differences"] = reward_differences(records, rewards[name], rewards[config.baseline])
    versions = [
        with_win_rates({"name": name, **version}, rates)
        for name, version, rates in zip(
            config.versions, measured, compare_in_order(config.versions, config.baseline, ours, records), strict=True
        )
    ]
    watched = [_watched_rewards(records, rewards[name]) for name in config.versions]
    for version, changes in zip(versions, changes_of_versions(config.versions, watched), strict=True):
        version["reward_changes"] = changes
    write_json(
        runtime.folder / "evaluation.json",
        {
            "versions": versions,
            "prompts": len(records),
            "seen_prompts": _seen(records),
            "dialogues": len(examination.dialogues),
            "seen_dialogues": _seen(examination.dialogues),
            "measures": to_json(examination.measures),
            "reward_quality": reward_quality(records, rewards, verdicts),
        },
    )
    return {"versions": versions}


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if the win rates' baseline, or what is asked several times, is none of the versions."""
    del inputs, count
    check_baseline(config)
    for name, answers in _answers_per_prompt(config).items():
        if name not in config.versions:
            raise ValueError(f"answers_per_prompt.{name}: choose one of the versions, {', '.join(config.versions)}")
        if answers < 1:
            raise ValueError(f"answers_per_prompt.{name}={answers}: wanted at least 1")


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """Generation by one version after the other, and scores by the reward models, which stay, and by a judge."""
    version = abstract_model("version", model, mesh)
    rewards = (*abstract_reward_models(model, mesh), *abstract_general_reward(config, model, mesh))
    most = max(_answers_per_prompt(config).values(), default=1)
    programs = (
        *generation(config, model, mesh, version, rewards, samples_per_prompt=most),
        *reward_scores(model, mesh, rewards, (version, *rewards)),
        *annotator_scores(config, model, mesh, (version, *rewards)),
        *([instruction_attention_work(model, mesh, version, rewards)] if config.instruction_dialogues else ()),
    )
    judged = f"of the judge {config.judge.function} only its models are counted"
    in_turns = (TURN_AFTER_TURN,) if config.instruction_dialogues else ()
    return DeviceWork(programs, assumptions=(LONGEST_PROMPTS, *in_turns, judged))


def _seen(records: Sequence[dict]) -> int:
    return sum(bool(record.get("seen")) for record in records)


def _measure(name: str, config: ConfigDict, policy: Policy, examination: Examination, runtime: Runtime) -> dict:
    """A version's measures; its answers with their verdicts go to a file."""
    records = examination.records
    rows = _answer(name, config, policy, examination, runtime)
    verdicts = examination.judge(rows)
    write_jsonl(
        runtime.folder / f"answers_{name}.jsonl",
        [{**row, "verdict": verdict} for row, verdict in zip(rows, verdicts, strict=True)],
    )
    unseen = [row for row in rows if not row["seen"]]
    rewards = [row["rewards"] for row in rows]
    watched = _watched_rewards(records, rewards).general
    general, general_error = mean_and_error(watched) if watched else (None, None)
    return {
        "utilities": utilities(records, verdicts),
        "rewards": rewards,
        "verdicts": [verdict and {field: verdict.get(field) for field in COMPARED_ON} for verdict in verdicts],
        **summarise(records, verdicts, examination.measures),
        "judged": count_judged(records, verdicts, examination.measures),
        "categories": by_category(records, verdicts, examination.measures),
        "safety_summary": safety_summary(records, rewards, verdicts),
        "notes": not_judged(records, verdicts, examination.measures),
        **_instructions(name, config, policy, examination, runtime),
        "reward_helpfulness": mean_known([row["rewards"] for row in unseen], "helpfulness"),
        "reward_safety": mean_known([row["rewards"] for row in unseen], "safety"),
        "reward_general": general,
        "reward_general_standard_error": general_error,
        "answer_tokens": mean_known(unseen, "answer_tokens"),
    }


def _watched_rewards(records: Sequence[Mapping], rewards: Sequence[Mapping]) -> Rewards:
    """The optimised and the general reward of the answers to unseen harmless prompts; general is None without one."""
    unseen = [index for index, record in enumerate(records) if not record.get("seen")]
    optimised, general = ([rewards[index].get(name) for index in unseen] for name in ("combined", "general"))
    has_general = all(reward is not None for reward in general)
    return Rewards(optimised, general if has_general else None).harmless([records[index] for index in unseen])


def _answer(name: str, config: ConfigDict, policy: Policy, examination: Examination, runtime: Runtime) -> list[dict]:
    """A version's answers with what the reward models say of them: of several to a prompt the one with the best."""
    records, prompts = examination.records, examination.prompts
    each = _answers_per_prompt(config).get(name, 1)

    def score(shard: slice, samples: Sequence[Sample]) -> list[dict]:
        asked = [one for one in zip(records[shard], prompts[shard], strict=True) for _ in range(each)]
        rows = [
            {
                "messages": record["messages"],
                "safety": record["safety"],
                "category": record.get("category", ""),
                "seen": bool(record.get("seen")),
                "response": policy.tokenizer.decode(sample.tokens).strip(),
                "finished": bool(sample.finished),
                "answer_tokens": len(sample.tokens),
                "tokens": [*prompt, *sample.tokens.tolist()],
            }
            for (record, prompt), sample in zip(asked, samples, strict=True)
        ]
        scores = examination.reward_models.score(rows)
        best = best_of_each(scores.logit, [row["finished"] for row in rows], each)
        rows, rewards = [rows[index] for index in best], [scores.row(index) for index in best]
        if examination.general:
            for found, logit in zip(rewards, examination.general([row["tokens"] for row in rows]), strict=True):
                found["general"] = float(logit)
        return [{**row, "rewards": found} for row, found in zip(rows, rewards, strict=True)]

    key = named_key(runtime.key, "answers")
    return sample_resumable(f"{name} answers", policy, prompts, _sampling(config), key, score, runtime, each)


def _instructions(name: str, config: ConfigDict, policy: Policy, examination: Examination, runtime: Runtime) -> dict:
    """How a version follows instructions over turns: kept, known and new ones, and its attention to them."""
    dialogues = examination.dialogues
    conversations = converse_resumable(
        f"{name} dialogues",
        policy,
        [record["turns"] for record in dialogues],
        _sampling(config),
        named_key(runtime.key, "instructions"),
        runtime,
        systems=[record["messages"][0]["content"] for record in dialogues],
    )
    verdicts = {turn: _judged(turn, conversations, examination) for turn in config.instruction_turns}
    (kept, answers), (new_kept, new_answers) = (kept_by_turn(verdicts, indices) for indices in known_and_new(dialogues))
    return {
        "instruction_kept": kept,
        "new_instruction_kept": new_kept,
        "instruction_answers": answers,
        "new_instruction_answers": new_answers,
        "instruction_attention": instruction_attention(policy, conversations, config.instruction_turns),
    }


def _judged(turn: int, conversations: Sequence[Conversation], examination: Examination) -> dict[int, dict | None]:
    """The verdicts on a turn's answers, by the index of the dialogue; of dialogues that end before there is none."""
    reached = [index for index, conversation in enumerate(conversations) if len(conversation.answers) >= turn]
    verdicts = examination.judge([conversations[index].row(turn) for index in reached]) if reached else []
    return dict(zip(reached, verdicts, strict=True))


def _answers_per_prompt(config: ConfigDict) -> dict[str, int]:
    """How many answers a version is asked for, by its name; 1 where there is none."""
    return dict(config.get("answers_per_prompt", {}))


def _sampling(config: ConfigDict) -> Sampling:
    return Sampling(config.temperature, config.top_p, config.max_new_tokens)
