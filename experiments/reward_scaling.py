"""How the accuracy of reward models grows with the comparisons and with the model (section 3.2.2, figure 6).

A finished run of rlhf_v5, config.source_run, gives its tokenizer, the comparisons of its five rounds and its fine-tuned
model. From that model reward models are trained on the comparisons of 1/8, 1/4, 1/2 and all of the prompts, and tested
on the same held-out ones. Each part's prompts are among the next one's; what the mix takes of the other domain and of
open data is drawn from the part. The report has the accuracy with standard errors.

Reaches (tiny, one seed): from an eighth to all of the comparisons accuracy rises from 0.63 to 0.72 for helpfulness and
from 0.57 to 0.65 for safety, standard errors 0.02; both still rise from a half to all.
Costs (tiny): 8 minutes of one CPU core, after the run of rlhf_v5.
Run: python -m llama2_jax.main --config=experiments/reward_scaling.py[:<scale>[,<data>]] --config.source_run=<workdir>

A run is of one size of model. For the curve over sizes, fine-tune a model of another size with the run's tokenizer, and
start from it: comparisons are texts and token ids, which any size can read.

    python -m llama2_jax.main --config=experiments/sft.py --config.model.layers=2 --workdir=<small> \\
        --config.given.tokenizer=<workdir>/tokenizer
    python -m llama2_jax.main --config=experiments/reward_scaling.py --config.model.layers=2 --workdir=<its curve> \\
        --config.source_run=<workdir> --config.sft.folder=<small>/sft
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.ending import add_report
from experiments.parts.rounds import KINDS
from experiments.parts.source_run import add_reward_models, keep_settings_alone

# Of the prompts whose comparisons are trained on.
FRACTIONS = {"eighth": 1 / 8, "quarter": 1 / 4, "half": 1 / 2, "all": 1.0}


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = rlhf_v1.start(argument)
    keep_settings_alone(config, "reward_scaling")
    parts = {
        f"{kind}_reward_{name}": (kind, {"prompt_fraction": fraction})
        for name, fraction in FRACTIONS.items()
        for kind in KINDS
    }
    add_reward_models(config, parts)
    add_report(config)
    return config
