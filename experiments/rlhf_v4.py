"""RLHF-V4: as V3, and the best answers of all rounds join in, scored again by the newest reward models (section 3.2.3).

Reaches (tiny): true helpfulness 0.61, a win rate over SFT of 0.83; more in docs/results.md.
Costs (tiny): 20 minutes on 2 slow CPU cores, V3 among them.
Run: python -m llama2_jax.main --config=experiments/rlhf_v4.py[:<scale>[,<data>]]
"""

from ml_collections import ConfigDict

from experiments import rlhf_v3
from experiments.parts.ending import with_evaluation
from experiments.parts.rounds import add_round


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    return with_evaluation(training(argument))


def training(argument: str) -> ConfigDict:
    """All but the evaluation and the report."""
    config = rlhf_v3.training(argument)
    config.experiment = "rlhf_v4"
    add_round(
        config,
        4,
        newest="rlhf_v3_rejection_sampling",
        earlier="rlhf_v2_rejection_sampling",
        bag="all_rounds",
        dialogues=("rlhf_v3_ghost_attention",),
    )
    return config
