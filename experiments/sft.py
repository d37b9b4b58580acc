"""Supervised fine-tuning (section 3.1): first public instruction data, then fewer and better annotations.

Reaches (tiny, medians of five seeds that nothing was chosen on): a chat model of mixed manners, true helpfulness 0.52
on unseen questions (docs/results.md).
Costs (tiny): 6 minutes on 2 CPU cores, pretraining among them.
Run: python -m llama2_jax.main --config=experiments/sft.py[:<scale>[,<data>]]
"""

from ml_collections import ConfigDict

from experiments import pretrain
from experiments.parts.choice import sources_of
from experiments.parts.stages import add_stage
from experiments.parts.training import finetuning_schedule, finetuning_settings


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = pretrain.get_config(argument)
    config.experiment = "sft"
    config.finetuning = finetuning_settings(config)
    sources = sources_of(config)
    # Section 3.1, "Getting Started": millions of public examples; kept as the earlier version to compare with in V1.
    add_stage(config, "sft_public", {
        "run": "llama2_jax.stages.finetune",
        "role": "finetuning",
        "inputs": {"tokenizer": "tokenizer", "start": "pretrain"},
        "sources": sources.public_demonstrations,
        "held_out": sources.held_out_public_demonstrations,
        "finetune": finetuning_schedule(config, epochs=1),
    })  # fmt: skip
    # 27,540 annotations of vendors, two epochs.
    add_stage(config, "sft", {
        "run": "llama2_jax.stages.finetune",
        "role": "finetuning",
        "inputs": {"tokenizer": "tokenizer", "start": "sft_public"},
        "sources": sources.demonstrations,
        "held_out": sources.held_out_demonstrations,
        "finetune": finetuning_schedule(config, epochs=2),
    })  # fmt: skip
    return config
