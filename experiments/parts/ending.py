"""How an experiment ends: its versions are evaluated, and the report shows what all stages reached."""

from collections.abc import Mapping

from ml_collections import ConfigDict

from experiments.parts.choice import sources_of
from experiments.parts.rounds import KINDS, general_reward_input
from experiments.parts.shared_settings import shared
from experiments.parts.sources import Sources
from experiments.parts.stages import add_stage, stages_with_role


def with_evaluation(
    config: ConfigDict, *, baseline: str = "sft", reward_models: Mapping[str, str] | None = None
) -> ConfigDict:
    """Adds the evaluation of every version on the same prompts, then the report.

    Args:
      config: the experiment so far, changed in place.
      baseline: the version that win rates are over.
      reward_models: of each kind the stage that scores the answers; by default the last round's.
    """
    sources = sources_of(config)
    reward_models = reward_models or {kind: newest_reward_model(config, kind) for kind in KINDS}
    add_stage(config, "evaluation", {
        "run": "llama2_jax.stages.evaluate",
        "role": "evaluation",
        "inputs": {
            "tokenizer": "tokenizer",
            "models": tuple(stage for _, stage in config.versions),
            **reward_models,
            **general_reward_input(config),
            **sources.annotator_inputs,
        },
        "versions": tuple(name for name, _ in config.versions),
        "baseline": baseline,
        "answers_per_prompt": {},  # by version, where the best of several by the reward models is its answer
        "prompts": sources.evaluation_prompts,
        "instruction_dialogues": sources.instruction_dialogues,
        "instruction_turns": (1, 2, 4, 6, 10, 20),
        "judge": sources.judge,
        "safety_threshold": shared(config, "safety_threshold"),
        "temperature": 0.6,  # Meta's defaults for chat
        "top_p": 0.9,
        "max_new_tokens": shared(config, "answer_tokens"),
    })  # fmt: skip
    add_report(config)
    return config


def add_judged_answers(config: ConfigDict, *, name: str = "evaluation", baseline: str, **fields) -> None:
    """Adds an evaluation of every version by a judge alone, on the evaluation's prompts unless the fields say others.

    Args:
      config: the experiment so far, changed in place.
      name: of the stage.
      baseline: the version that the others are compared with.
      fields: in which the stage differs, such as its `prompts` or its `judge`.
    """
    sources = sources_of(config)
    add_stage(config, name, {
        "run": "llama2_jax.stages.judged_answers",
        "role": "evaluation",
        "inputs": {
            "tokenizer": "chat_tokenizer",
            "models": tuple(stage for _, stage in config.versions),
            **judge_inputs(sources),
        },
        "versions": tuple(name for name, _ in config.versions),
        "baseline": baseline,
        "prompts": sources.evaluation_prompts,
        "judge": sources.judge,
        "measures": "llama2_jax.evaluation.measures.OF_A_JUDGE",
        "temperature": 0.6,  # Meta's defaults for chat
        "top_p": 0.9,
        "max_new_tokens": shared(config, "answer_tokens"),
        **fields,
    })  # fmt: skip


def judge_inputs(sources: Sources) -> dict[str, str]:
    """Returns what a judge reads: the annotators' models, if it is these, and the tokenizer of their chat format."""
    return {**sources.annotator_inputs, "judge_tokenizer": "tokenizer"} if sources.annotator_inputs else {}


def add_report(config: ConfigDict) -> None:
    """Adds the report on all stages so far."""
    add_stage(config, "report", {
        "run": "llama2_jax.stages.report",
        "role": "report",
        "inputs": {"stages": config.stages},
        # What only a person can say of the model, for model_card.md.
        "model_card": {"developers": "", "license": "", "contact": "", "freshness": ""},
    })  # fmt: skip


def newest_reward_model(config: ConfigDict, kind: str) -> str:
    """Returns the name of the last round's reward model of a kind."""
    models = [name for name in stages_with_role(config, "reward_model") if config[name].kind == kind]
    return max(models, key=lambda name: config[name].round)
