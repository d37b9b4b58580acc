"""Supervised fine-tuning (section 3.1): first public instruction data, then fewer and better annotations.

Reaches (tiny): a chat model of mixed manners, true helpfulness 0.43, in about half a minute after pretraining.
Run: python -m llama2_jax.main --config=experiments/sft.py[:scale]
"""

from ml_collections import ConfigDict

from experiments import pretrain
from experiments.pretrain import optimization, sources_of
from experiments.scales import by_scale, shared


def get_config(scale: str = "tiny") -> ConfigDict:
    """The experiment at a scale."""
    config = pretrain.get_config(scale)
    config.experiment = "sft"
    sources = sources_of(scale)
    config.finetuning = {
        "batch_size": by_scale(scale, {"tiny": 8}, paper=64),
        "learning_rate": by_scale(scale, {"tiny": 1e-3, "small": 1e-4, "1b": 4e-5}, paper=2e-5),
        # "Like SFT" (section 3.2.3); in miniature it starts from a chat model, and goes on more gently.
        "learning_rate_after_sampling": by_scale(scale, {"tiny": 5e-4, "small": 1e-4, "1b": 4e-5}, paper=2e-5),
    }
    # Section 3.1, "Getting Started": millions of public examples; kept as the earlier version to compare with in V1.
    config.sft_public = finetuning(config, start="pretrain", sources=sources.public_demonstrations(), epochs=1)
    # 27,540 annotations of vendors, two epochs.
    config.sft = finetuning(config, start="sft_public", sources=sources.demonstrations(), epochs=2)
    config.stages = (*config.stages, "sft_public", "sft")
    return config


def finetuning(config: ConfigDict, *, start: str, sources: dict, epochs: int) -> dict:
    """One fine-tuning on answers only: batch 64, length 4096, cosine from 2e-5 (section 3.1)."""
    return {
        "run": "llama2_jax.stages.finetune",
        "inputs": {"tokenizer": "tokenizer", "start": start},
        "sources": sources,
        "finetune": finetuning_schedule(config, epochs),
    }


def finetuning_schedule(config: ConfigDict, epochs: int, learning_rate: str = "learning_rate") -> dict:
    """How a model is fine-tuned on dialogues, here and after rejection sampling: the fields of config.finetuning."""
    scale = config.scale
    return {
        "batch_size": shared(config.finetuning, "batch_size"),
        "length": shared(config.model, "max_length"),
        "epochs": epochs,
        "accumulation": 1,
        "too_long": by_scale(scale, {"tiny": "raise"}, paper="drop"),
        **optimization(
            learning_rate=shared(config.finetuning, learning_rate),
            warmup_steps=by_scale(scale, {"tiny": 5}, paper=0),  # not stated in the paper
            save_every=by_scale(scale, {"tiny": 200}, paper=200),
        ),
    }
