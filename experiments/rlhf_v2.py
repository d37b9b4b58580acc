"""RLHF-V2: comparisons of V1 with the fine-tuned model, reward models on all comparisons so far, V1's samples.

Reaches (tiny, medians of five seeds that nothing was chosen on): true helpfulness 0.57 from SFT's 0.52, a win rate over
SFT of 0.64, violations 0.39 from 0.56, on unseen questions (docs/results.md).
Costs (tiny): 9 minutes on 2 CPU cores, V1 among them.
Run: python -m llama2_jax.main --config=experiments/rlhf_v2.py[:<scale>[,<data>]]
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.ending import with_evaluation
from experiments.parts.rounds import add_round


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    return with_evaluation(training(argument))


def training(argument: str) -> ConfigDict:
    """All but the evaluation and the report."""
    config = rlhf_v1.training(argument)
    config.experiment = "rlhf_v2"
    add_round(config, 2, newest="rlhf_v1_rejection_sampling", earlier="sft")
    return config
