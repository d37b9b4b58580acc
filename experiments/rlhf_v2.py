"""RLHF-V2: comparisons of V1 with the fine-tuned model, reward models on all comparisons so far, V1's samples.

Reaches (tiny): see docs/results.md.
Run: python -m llama2_jax.main --config=experiments/rlhf_v2.py[:scale]
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.rounds import add_round, with_evaluation


def get_config(scale: str = "tiny") -> ConfigDict:
    """The experiment at a scale."""
    return with_evaluation(training(scale))


def training(scale: str) -> ConfigDict:
    """All but the evaluation and the report."""
    config = rlhf_v1.training(scale)
    config.experiment = "rlhf_v2"
    add_round(config, 2, newest="rlhf_v1_rejection_sampling", earlier="sft")
    return config
