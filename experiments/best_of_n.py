"""Best of N: no training at all, the reward models choose among N answers to each prompt when it is asked.

A finished run of rlhf_v5, config.source_run, gives its models. SFT and V5's rejection-sampling model are asked N times
for each prompt of the evaluation, and the answer with the best piecewise reward of the last round's reward models
counts; V5 stands beside them. The annotation budget is V5's: the same comparisons made the reward models. What it costs
is N answers, and their scores, for each one that is given. In dialogues each turn has one answer.

Reaches (tiny, seed 13): of 16 answers SFT's best has true helpfulness 0.67 from 0.58 (V5: 0.65), wholly right answers
0.71 from 0.65 (V5: 0.75), violations 0.19 from 0.50 (V5: 0.10); of 64 answers 0.69, 0.73 and 0.11.
Costs (tiny): 7 minutes on 2 CPU cores that other work kept busy, after the run of rlhf_v5.
Run: python -m llama2_jax.main --config=experiments/best_of_n.py[:<scale>[,<data>]] --config.source_run=<workdir>
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.ending import with_evaluation
from experiments.parts.ppo import REWARD_MODELS
from experiments.parts.rounds import add_version
from experiments.parts.source_run import keep_models

REJECTION_SAMPLING = "rlhf_v5_rejection_sampling"
# By version the stage with its model, and how many answers to each prompt it chooses from.
VERSIONS = {
    "sft": ("sft", 1),
    **{f"sft_best_of_{answers}": ("sft", answers) for answers in (4, 16, 64)},
    REJECTION_SAMPLING: (REJECTION_SAMPLING, 1),
    f"{REJECTION_SAMPLING}_best_of_16": (REJECTION_SAMPLING, 16),
    "rlhf_v5": ("rlhf_v5_ppo", 1),
}


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = rlhf_v1.start(argument)
    keep_models(config, "best_of_n", (stage for stage, _ in VERSIONS.values()))
    for name, (stage, _) in VERSIONS.items():
        add_version(config, name, stage)
    with_evaluation(config, reward_models=REWARD_MODELS)
    config.evaluation.answers_per_prompt = {name: answers for name, (_, answers) in VERSIONS.items() if answers > 1}
    return config
