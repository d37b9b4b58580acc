"""RLHF-V1: the first comparisons, the first two reward models, the first rejection sampling (section 3.2).

Reaches (tiny, medians of five seeds that nothing was chosen on): true helpfulness 0.53 from SFT's 0.52, a win rate over
SFT of 0.65, violations 0.38 from 0.56, on unseen questions (docs/results.md).
Costs (tiny): 8 minutes on 2 CPU cores, pretraining and fine-tuning among them.
Run: python -m llama2_jax.main --config=experiments/rlhf_v1.py[:<scale>[,<data>]]
"""

from ml_collections import ConfigDict

from experiments import sft
from experiments.parts.ending import with_evaluation
from experiments.parts.rounds import add_annotator_models, add_general_reward, add_round
from experiments.parts.scales import by_scale
from experiments.parts.training import reward_model_settings


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    return with_evaluation(training(argument))


def training(argument: str) -> ConfigDict:
    """All but the evaluation and the report."""
    config = start(argument)
    config.experiment = "rlhf_v1"
    config.samples_per_prompt = by_scale(config.scale, {"tiny": 4, "small": 8}, paper=20)  # not stated; 20 in figure 26
    add_round(config, 1, newest="sft", earlier="sft_public")
    return config


def start(argument: str) -> ConfigDict:
    """What the rounds of RLHF start from: the fine-tuned model, and the settings that the rounds share."""
    config = sft.get_config(argument)
    config.versions = (("sft", "sft"),)
    config.answer_tokens = by_scale(config.scale, {"tiny": 64, "small": 256}, paper=1024)  # the longest answer sampled
    # Section 3.2.3 states the rule for PPO; how rejection sampling combines the two rewards is not stated.
    config.safety_threshold = 0.15
    config.reward_models = reward_model_settings(config)
    add_annotator_models(config)
    add_general_reward(config)
    return config
