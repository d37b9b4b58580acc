"""RLHF-V4: Ghost Attention data from V3's model (section 3.3), and the best answers of all rounds (section 3.2.3).

The fine-tuning has both from here on: dialogues in which V3 keeps an instruction, and the rounds' best answers, scored
again by the newest reward models.

Reaches (tiny, medians of five seeds that nothing was chosen on): true helpfulness 0.59 and content 0.76 from SFT's 0.52
and 0.70, a win rate over SFT of 0.73, on unseen questions; known instructions kept in 1.00 of answers at turn 6 and
0.88 at turn 20 (docs/results.md).
Costs (tiny): 16 minutes on 2 CPU cores, V3 among them.
Run: python -m llama2_jax.main --config=experiments/rlhf_v4.py[:<scale>[,<data>]]
"""

from ml_collections import ConfigDict

from experiments import rlhf_v3
from experiments.parts.choice import sources_of
from experiments.parts.ending import with_evaluation
from experiments.parts.rounds import add_round
from experiments.parts.scales import by_scale
from experiments.parts.shared_settings import shared
from experiments.parts.stages import add_stage


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    return with_evaluation(training(argument))


def training(argument: str) -> ConfigDict:
    """All but the evaluation and the report."""
    config = rlhf_v3.training(argument)
    config.experiment = "rlhf_v4"
    newest, earlier = "rlhf_v3_rejection_sampling", "rlhf_v2_rejection_sampling"
    add_ghost_attention(config, policy=newest)
    add_round(config, 4, newest=newest, earlier=earlier, bag="all_rounds", dialogues=("rlhf_v3_ghost_attention",))
    return config


def add_ghost_attention(config: ConfigDict, *, policy: str) -> None:
    """Adds dialogues in which a standing instruction is kept, sampled from V3's model (section 3.3)."""
    scale, sources = config.scale, sources_of(config)
    add_stage(config, "rlhf_v3_ghost_attention", {
        "run": "llama2_jax.stages.ghost_attention",
        "role": "ghost_attention",
        "inputs": {"tokenizer": "tokenizer", "policy": policy},
        "dialogues": sources.ghost_attention_dialogues,
        "instructions": sources.standing_instructions,
        "terse_fraction": 0.5,
        # Of a dialogue at most, the last among them; in the miniature all, since few dialogues are made.
        "trained_answers": by_scale(scale, {"tiny": 24}, paper=1),
        # Not stated. A small model loses an instruction in long dialogues, and the sooner the hotter it is sampled.
        "temperature": by_scale(scale, {"tiny": 0.3}, paper=0.7),
        "top_p": 0.9,
        "max_new_tokens": shared(config, "answer_tokens"),
    })  # fmt: skip
