"""What the margin and the auxiliary safety loss do for reward models (appendix A.3.3, tables 28 and 29).

A finished run of rlhf_v5, config.source_run, gives its tokenizer, the comparisons of its five rounds and its fine-tuned
model. From that model helpfulness models are trained without a margin, with the small and with the large one, and
safety models with and without the auxiliary loss; all are tested on the same held-out comparisons. The report has the
accuracy by rating and the recall of unsafe answers, with standard errors.

Reaches (tiny, one seed): the auxiliary loss raises the recall of unsafe answers from 0.52 to 0.86; margins differ by no
more than chance (docs/findings.md).
Costs (tiny): 5 minutes on 2 CPU cores, after the run of rlhf_v5.
Run: python -m llama2_jax.main --config=experiments/reward_ablation.py[:<scale>[,<data>]] --config.source_run=<workdir>
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.ending import add_report
from experiments.parts.source_run import add_reward_models, keep_settings_alone

# By stage: the kind of model, and the field that is not as the recipe has it.
ABLATIONS = {
    "no_margin": ("helpfulness", {"margin": "none"}),
    "small_margin": ("helpfulness", {"margin": "small"}),
    "large_margin": ("helpfulness", {"margin": "large"}),
    "no_auxiliary_loss": ("safety", {"safety_auxiliary_weight": 0.0}),
    "auxiliary_loss": ("safety", {"safety_auxiliary_weight": 1.0}),
}


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = rlhf_v1.start(argument)
    keep_settings_alone(config, "reward_ablation")
    add_reward_models(config, ABLATIONS)
    add_report(config)
    return config
