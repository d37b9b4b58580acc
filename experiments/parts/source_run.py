"""Experiments on a finished run of rlhf_v5, config.source_run: its stages are imported under their own names."""

from collections.abc import Iterable, Mapping

from ml_collections import ConfigDict

from experiments.parts.choice import sources_of
from experiments.parts.ppo import REWARD_MODELS
from experiments.parts.rounds import GENERAL_REWARD
from experiments.parts.stages import add_stage
from experiments.parts.training import reward_model

ROUNDS = range(1, 6)
# Versions from SFT on, by name the stages with their models.
SOME_VERSIONS = {
    "sft": "sft",
    "rlhf_v1": "rlhf_v1_rejection_sampling",
    "rlhf_v3": "rlhf_v3_rejection_sampling",
    "rlhf_v5_rejection_sampling": "rlhf_v5_rejection_sampling",
    "rlhf_v5": "rlhf_v5_ppo",
}


def keep_settings_alone(config: ConfigDict, experiment: str) -> None:
    """Turns the start of the rounds (rlhf_v1.start) into that of an experiment on their finished run.

    The settings stay, the stages go; config.source_run is the run's default workdir, and its tokenizer is imported.
    """
    config.experiment = experiment
    config.source_run = f"runs/rlhf_v5-{config.variant}"
    for name in config.stages:
        del config[name]
    config.given, config.stages, config.versions = {}, (), ()
    _add_import(config, "tokenizer", run="llama2_jax.stages.imported", role="tokenizer", inputs={})


def add_chat_tokenizer(config: ConfigDict, chat_format: str) -> None:
    """Adds `chat_tokenizer`: the run's pieces, for dialogues in another chat format than the run's."""
    add_stage(config, "chat_tokenizer", {
        "run": "llama2_jax.stages.imported",
        "role": "tokenizer",
        "folder": config.get_ref("source_run") + "/tokenizer",
        "chat_format": chat_format,
    })  # fmt: skip


def keep_base_model(config: ConfigDict, experiment: str, chat_format: str) -> None:
    """`keep_settings_alone` for an experiment that fine-tunes the run's base model in a chat format of its own.

    Imported are the base model, the annotators' models where they judge, and `chat_tokenizer`.
    """
    keep_settings_alone(config, experiment)
    add_chat_tokenizer(config, chat_format)
    for name in ("pretrain", *sources_of(config).annotator_inputs.values()):
        add_model(config, name)


def keep_models(config: ConfigDict, experiment: str, stages: Iterable[str]) -> None:
    """`keep_settings_alone` for an experiment whose versions are evaluated as the run's are.

    Imported are the models of the stages, each once, the last round's reward models and, where there are some, the
    annotators' models and the general reward model, which the evaluation asks.
    """
    judges = sorted({*sources_of(config).annotator_inputs.values(), GENERAL_REWARD}.intersection(config.stages))
    keep_settings_alone(config, experiment)
    for name in dict.fromkeys((*judges, *REWARD_MODELS.values(), *stages)):
        add_model(config, name)


def add_model(config: ConfigDict, name: str) -> None:
    """Adds the import of a model."""
    _add_import(config, name, run="llama2_jax.stages.imported")


def add_records(config: ConfigDict, name: str, role: str) -> None:
    """Adds the import of what a stage of a role wrote."""
    _add_import(config, name, run="llama2_jax.stages.imported_records", records_of=role)


def add_reward_models(config: ConfigDict, models: Mapping[str, tuple[str, Mapping]]) -> None:
    """Adds reward models on the comparisons of all of the run's rounds, from its fine-tuned model.

    Args:
      config: the experiment, after `keep_settings_alone`, changed in place.
      models: by stage, the kind of reward model and the fields in which it differs from the recipe's. The stages' role
        has the name of the experiment.
    """
    comparisons = tuple(f"rlhf_v{number}_annotation" for number in ROUNDS)
    for name in comparisons:
        add_records(config, name, "annotation")
    add_model(config, "sft")
    for name, (kind, fields) in models.items():
        add_stage(config, name, {
            "run": "llama2_jax.stages.reward_model",
            "role": config.experiment,
            "inputs": {"tokenizer": "tokenizer", "start": "sft", "annotations": comparisons},
            "round": max(ROUNDS),
            **reward_model(config, kind),
            **fields,
        })  # fmt: skip


def _add_import(config: ConfigDict, name: str, **fields) -> None:
    folder = config.get_ref("source_run") + f"/{name}"
    add_stage(config, name, {"role": "imported", "inputs": {"tokenizer": "tokenizer"}, "folder": folder, **fields})
