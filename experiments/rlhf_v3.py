"""RLHF-V3: comparisons of V2 with V1, reward models on all comparisons so far, V2's samples.

Reaches (tiny, medians of five seeds that nothing was chosen on): true helpfulness 0.58 from SFT's 0.52, a win rate over
SFT of 0.70, violations 0.40 from 0.56, on unseen questions (docs/results.md).
Costs (tiny): 11 minutes on 2 CPU cores, V2 among them.
Run: python -m llama2_jax.main --config=experiments/rlhf_v3.py[:<scale>[,<data>]]
"""

from ml_collections import ConfigDict

from experiments import rlhf_v2
from experiments.parts.ending import with_evaluation
from experiments.parts.rounds import add_round


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    return with_evaluation(training(argument))


def training(argument: str) -> ConfigDict:
    """All but the evaluation and the report."""
    config = rlhf_v2.training(argument)
    config.experiment = "rlhf_v3"
    add_round(config, 3, newest="rlhf_v2_rejection_sampling", earlier="rlhf_v1_rejection_sampling")
    return config
