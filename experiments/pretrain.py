"""Pretraining (section 2): a tokenizer, then next-token prediction on a mixture of sources.

Reaches (tiny): 0.45 nats a token on held-out text of the miniature (0.44 to 0.47 over five seeds).
Run: python -m llama2_jax.main --config=experiments/pretrain.py[:scale]
"""

import dataclasses

from ml_collections import ConfigDict, FieldReference

from experiments import sources_real, sources_tiny
from experiments.scales import by_scale, check_scale, shared
from llama2_jax.models.config import PRESETS


def get_config(scale: str = "tiny") -> ConfigDict:
    """The experiment at a scale."""
    check_scale(scale)
    config = ConfigDict()
    config.experiment = "pretrain"
    config.scale = scale
    config.seed = 0
    config.compilation_cache = "~/.cache/llama2_jax/compiled"
    config.data = {"root": ""}
    config.mesh = {"data": 1, "fsdp": -1, "tensor": by_scale(scale, {"13b": 2, "34b": 8, "70b": 8}, paper=1)}
    if scale == "tiny":
        config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    config.model = dataclasses.asdict(PRESETS[scale])

    sources = sources_of(scale)
    config.tokenizer = {
        "run": "llama2_jax.stages.tokenizer",
        "vocab_size": config.model.get_ref("vocab_size"),
        "sources": sources.pretraining(),
        "dialogues": sources.tokenizer_dialogues(),
        "character_coverage": 0.99995,  # as the released tokenizer
        "max_characters": by_scale(scale, {"tiny": 1_000_000, "small": 30_000_000}, paper=10_000_000_000),
    }
    config.pretrain = {
        "run": "llama2_jax.stages.pretrain",
        "inputs": {"tokenizer": "tokenizer"},
        "sources": sources.pretraining(),
        # 4M tokens a batch; 2T tokens are 500,000 steps of 4.0M (section 2.2).
        "batch_size": by_scale(scale, {"tiny": 7, "small": 256, "1b": 512}, paper=1024),
        "length": shared(config.model, "max_length"),
        "steps": by_scale(scale, {"tiny": 1400, "small": 8_000, "1b": 100_000}, paper=500_000),
        "accumulation": 1,
        "held_out_batches": by_scale(scale, {"tiny": 8}, paper=16),
        **optimization(
            learning_rate=by_scale(
                scale, {"tiny": 2e-3, "small": 6e-4, "1b": 4e-4, "34b": 1.5e-4, "70b": 1.5e-4}, paper=3e-4
            ),
            warmup_steps=by_scale(scale, {"tiny": 100, "small": 500}, paper=2000),
            save_every=by_scale(scale, {"tiny": 350}, paper=500),
            log_every=by_scale(scale, {"tiny": 50}, paper=10),
        ),
    }
    # Folders to take in place of these stages, such as a converted Llama 2 (docs/bring_your_own.md).
    config.given = {"tokenizer": "", "pretrain": ""}
    config.stages = ("tokenizer", "pretrain")
    return config


def sources_of(scale: str):
    """The sources of a scale: the miniature's for tiny, real files for all others."""
    return sources_tiny if scale == "tiny" else sources_real


def optimization(
    *,
    learning_rate: float | FieldReference,
    warmup_steps: int = 0,
    warmup_fraction: float = 0.0,
    final_fraction: float = 0.1,
    save_every: int = 500,
    log_every: int = 10,
) -> dict:
    """What all training stages share: AdamW as in section 2.2, a cosine to a tenth of the peak, clipping at 1."""
    return {
        "learning_rate": learning_rate,
        "warmup_steps": warmup_steps,  # at least so many
        "warmup_fraction": warmup_fraction,  # and at least this part of all steps
        "final_learning_rate_fraction": final_fraction,
        # moments_dtype may be bfloat16: half the memory of AdamW's moments.
        "optimizer": {"b1": 0.9, "b2": 0.95, "eps": 1e-5, "weight_decay": 0.1, "clip": 1.0, "moments_dtype": "float32"},
        "save_every": save_every,
        "log_every": log_every,
    }
