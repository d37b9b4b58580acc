"""RLHF-V3: as V2, with Ghost Attention data in the fine-tuning from here on (section 3.3).

Reaches (tiny): true helpfulness 0.61; an instruction is kept at turn 4 in 0.14 of the dialogues, from 0.00 for V2; more
in docs/results.md.
Costs (tiny): 17 minutes on 2 slow CPU cores, V2 among them.
Run: python -m llama2_jax.main --config=experiments/rlhf_v3.py[:<scale>[,<data>]]
"""

from ml_collections import ConfigDict

from experiments import rlhf_v2
from experiments.parts.choice import sources_of
from experiments.parts.ending import with_evaluation
from experiments.parts.rounds import add_round
from experiments.parts.shared_settings import shared
from experiments.parts.stages import add_stage


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    return with_evaluation(training(argument))


def training(argument: str) -> ConfigDict:
    """All but the evaluation and the report."""
    config = rlhf_v2.training(argument)
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
    """Adds dialogues in which a standing instruction is kept, sampled from the newest model (section 3.3)."""
    sources = sources_of(config)
    add_stage(config, f"rlhf_v{number}_ghost_attention", {
        "run": "llama2_jax.stages.ghost_attention",
        "role": "ghost_attention",
        "inputs": {"tokenizer": "tokenizer", "policy": policy},
        "dialogues": sources.ghost_attention_dialogues,
        "instructions": sources.standing_instructions,
        "terse_fraction": 0.5,
        "temperature": 0.7,  # not stated
        "top_p": 0.9,
        "max_new_tokens": shared(config, "answer_tokens"),
    })  # fmt: skip
