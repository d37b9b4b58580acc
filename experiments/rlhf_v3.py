"""RLHF-V3: as V2, with Ghost Attention data in the fine-tuning from here on (section 3.3).

Reaches (tiny): see docs/results.md.
Run: python -m llama2_jax.main --config=experiments/rlhf_v3.py[:scale]
"""

from ml_collections import ConfigDict

from experiments import rlhf_v2
from experiments.pretrain import sources_of
from experiments.rounds import add_round, with_evaluation
from experiments.scales import shared


def get_config(scale: str = "tiny") -> ConfigDict:
    """The experiment at a scale."""
    return with_evaluation(training(scale))


def training(scale: str) -> ConfigDict:
    """All but the evaluation and the report."""
    config = rlhf_v2.training(scale)
    config.experiment = "rlhf_v3"
    add_ghost_attention(config, 3, policy="rlhf_v2_rejection_sampling")
    add_round(
        config,
        3,
        newest="rlhf_v2_rejection_sampling",
        earlier="rlhf_v1_rejection_sampling",
        dialogues=("rlhf_v3_ghost_attention",),
    )
    return config


def add_ghost_attention(config: ConfigDict, number: int, *, policy: str) -> None:
    """Dialogues in which a standing instruction is kept, sampled from the newest model (section 3.3)."""
    sources = sources_of(config.scale)
    name = f"rlhf_v{number}_ghost_attention"
    config[name] = {
        "run": "llama2_jax.stages.ghost_attention",
        "inputs": {"tokenizer": "tokenizer", "policy": policy},
        "dialogues": sources.ghost_attention_dialogues(),
        "instructions": sources.standing_instructions(),
        "terse_fraction": 0.5,
        "temperature": 0.7,  # not stated
        "top_p": 0.9,
        "max_new_tokens": shared(config, "answer_tokens"),
    }
    config.stages = (*config.stages, name)
