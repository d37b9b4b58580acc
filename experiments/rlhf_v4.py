"""RLHF-V4: as V3, and the best answers of all rounds join in, scored anew by the newest reward models (section 3.2.3).

Reaches (tiny): see docs/results.md.
Run: python -m llama2_jax.main --config=experiments/rlhf_v4.py[:scale]
"""

from ml_collections import ConfigDict

from experiments import rlhf_v3
from experiments.rounds import add_round, with_evaluation


def get_config(scale: str = "tiny") -> ConfigDict:
    """The experiment at a scale."""
    return with_evaluation(training(scale))


def training(scale: str) -> ConfigDict:
    """All but the evaluation and the report."""
    config = rlhf_v3.training(scale)
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
