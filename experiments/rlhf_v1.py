"""RLHF-V1: the first comparisons, the first two reward models, the first rejection sampling (section 3.2).

Reaches (tiny): see docs/results.md.
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
    config.samples_per_prompt = by_scale(scale, {"tiny": 4, "small": 8}, paper=20)  # K is not stated; figure 26 has 20
    config.reward_models = {
        "pairs_per_batch": by_scale(scale, {"tiny": 16, "small": 64}, paper=512),
        "learning_rate": by_scale(scale, {"tiny": 5e-4, "small": 5e-5, "70b": 5e-6}, paper=1e-5),
        "human_comparisons": 1_000_000_000,  # the most to read of a file of comparisons by people
    }
    sources_of(scale).add_annotator(config)
    add_round(config, 1, newest="sft", earlier="sft_public")
    return config
