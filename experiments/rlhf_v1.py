"""RLHF-V1: the first comparisons, the first two reward models, the first rejection sampling (section 3.2).

Reaches (tiny): see docs/results.md. Takes about four minutes on 2 CPU cores.
Run: python -m llama2_jax.main --config=experiments/rlhf_v1.py[:scale]
"""

from ml_collections import ConfigDict

from experiments import sft
from experiments.pretrain import sources_of
from experiments.rounds import add_round, with_evaluation
from experiments.scales import by_scale


def get_config(scale: str = "tiny") -> ConfigDict:
    """The experiment at a scale."""
    return with_evaluation(training(scale))


def training(scale: str) -> ConfigDict:
    """All but the evaluation and the report."""
    config = sft.get_config(scale)
    config.experiment = "rlhf_v1"
    config.versions = (("sft", "sft"),)
    config.answer_tokens = by_scale(scale, {"tiny": 64, "small": 256}, paper=1024)  # the longest answer sampled
    sources_of(scale).add_annotator(config)
    add_round(config, 1, newest="sft", earlier="sft_public")
    return config
