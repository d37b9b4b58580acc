"""Pretraining (section 2): a tokenizer, then next-token prediction on a mixture of sources.

Reaches (tiny): 0.48 nats a token on held-out text of the miniature (five seeds).
Costs (tiny): 4 minutes on 2 CPU cores.
Run: python -m llama2_jax.main --config=experiments/pretrain.py[:<scale>[,<data>]]
"""

import dataclasses

from ml_collections import ConfigDict

from experiments.parts.choice import parse_argument, sources_of
from experiments.parts.scales import by_scale
from experiments.parts.stages import add_stage
from experiments.parts.training import ADAMW, ADAPTERS, optimization, row_length
from llama2_jax.models.config import PRESETS


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = start(argument)
    scale, sources = config.scale, sources_of(config)
    add_stage(config, "tokenizer", {
        "run": "llama2_jax.stages.tokenizer",
        "role": "tokenizer",
        "vocab_size": config.model.get_ref("vocab_size"),
        "sources": sources.pretraining,
        "dialogues": sources.tokenizer_dialogues,
        "character_coverage": 0.99995,  # as the released tokenizer
        "model": "",  # a tokenizer.model to take instead of training one
        "chat_format": "llama2",  # how dialogues are written: one of text/chat_formats.py
        "max_characters": by_scale(scale, {"tiny": 1_000_000, "small": 30_000_000}, paper=10_000_000_000),
    })  # fmt: skip
    add_stage(config, "pretrain", {
        "run": "llama2_jax.stages.pretrain",
        "role": "pretraining",
        "inputs": {"tokenizer": "tokenizer"},
        "sources": sources.pretraining,
        # 4M tokens a batch, as 1,024 rows of 4,096 (section 2.2).
        "batch_size": by_scale(scale, {"tiny": 7, "small": 256, "1b": 512}, paper=1024),
        "length": row_length(config),
        # 2.0T tokens are 476,837 steps of 1,024 x 4,096 = 4,194,304 tokens (table 1).
        "steps": by_scale(scale, {"tiny": 1250, "small": 8_000, "1b": 100_000}, paper=476_837),
        "accumulation": by_scale(scale, {"tiny": 1, "small": 8, "1b": 32}, paper=4),
        "evaluate_every": by_scale(scale, {"tiny": 250, "small": 500}, paper=1000),
        "held_out_batches": by_scale(scale, {"tiny": 8}, paper=16),
        **optimization(
            config,
            learning_rate=by_scale(
                scale, {"tiny": 8e-3, "small": 6e-4, "1b": 4e-4, "34b": 1.5e-4, "70b": 1.5e-4}, paper=3e-4
            ),
            warmup_steps=by_scale(scale, {"tiny": 100, "small": 500}, paper=2000),
        ),
        "adapters": ADAPTERS,  # its own: config.adapters is of stages that start from a model
        "save_every": by_scale(scale, {"tiny": 250}, paper=500),
        "log_every": by_scale(scale, {"tiny": 50}, paper=10),
    })  # fmt: skip
    # Folders to take in place of these stages, such as a converted Llama 2 (docs/bring_your_own.md).
    config.given = {"tokenizer": "", "pretrain": ""}
    return config


def start(argument: str) -> ConfigDict:
    """What all experiments have, without a stage."""
    choice = parse_argument(argument)
    config = ConfigDict()
    config.experiment = "pretrain"
    config.scale = choice.scale
    config.variant = choice.variant  # in the name of the folder of results
    config.data = {"name": choice.data, "root": ""}
    config.seed = 0
    config.compilation_cache = "~/.cache/llama2_jax/compiled"
    config.mesh = {"data": 1, "fsdp": -1, "tensor": by_scale(choice.scale, {"13b": 2, "34b": 8, "70b": 8}, paper=1)}
    if choice.scale == "tiny":
        config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    config.model = dataclasses.asdict(PRESETS[choice.scale])
    sources = sources_of(config)
    config.model.vocab_size = min(max(config.model.vocab_size, sources.smallest_vocabulary), sources.largest_vocabulary)
    config.optimizer = ADAMW
    config.adapters = ADAPTERS
    config.stages = ()
    return config
