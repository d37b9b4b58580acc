"""The stages of an experiment: `config.stages` names them in order, `config[name]` is a stage's part."""

from ml_collections import ConfigDict

ROLES = (
    "tokenizer",
    "pretraining",
    "finetuning",
    "annotation",
    "ranking",  # several answers to each prompt, ranked at once
    "annotator_model",  # a reward model that annotates and judges, and is no part of a version
    "reward_model",
    "reward_scaling",  # a reward model on a part of the comparisons, to see what more of them would bring
    "reward_ablation",  # a reward model that one setting is changed for, to see what it does
    "ranked_reward_model",  # a reward model on rankings, for all prompts alike
    "general_reward_model",  # a reward model that watches over the others: no policy is trained for it
    "rejection_sampling",
    "safety_scaling",  # a fine-tuning on a part of the safety data, to see what more of it would bring
    "ppo",
    "checkpoint_choice",  # which of a training's epochs is the model, by the quality of its answers
    "dpo",  # direct preference optimisation: the policy learns from the comparisons without a reward model
    "instructions",  # tasks that a model writes
    "curation",  # dialogues without those that are not worth learning
    "release",  # a model in few bits
    "perplexity",  # how likely versions find what people wrote
    "ghost_attention",
    "context_distillation",
    "imported",
    "evaluation",
    "benchmarks",
    "dates",  # whether answers fit the year in which a question is posed
    "diversity",  # how alike many answers to one prompt are
    "safety_sets",  # the paper's safety benchmarks, and false refusals
    "text_loss",  # what versions still know of pretraining
    "tools",  # word problems without a calculator and with one
    "head_to_head",  # the versions' answers compared pair by pair, by a judge that sees both
    "report",
)


def add_stage(config: ConfigDict, name: str, part: dict) -> None:
    """Adds a stage behind those that the experiment has; its part names its module, `run`, and its `role`."""
    config[name] = part
    config.stages = (*config.stages, name)


def stages_with_role(config: ConfigDict, role: str) -> tuple[str, ...]:
    """Returns the names of the stages with a role, in the order in which they run.

    Raises:
      ValueError: for an unknown role.
    """
    if role not in ROLES:
        raise ValueError(f"unknown role {role!r}; choose one of {', '.join(ROLES)}")
    return tuple(name for name in config.stages if config[name].role == role)
