"""Versions' answers compared pair by pair, by judges that see both (sections 3.4.1 and 3.4.2, figures 11 and 12).

A finished run of rlhf_v5, config.source_run, gives its evaluation's answers. Each version is compared with SFT and with
the version before it. The judges: who annotates in the recipe (in the miniature a rater, on real data reward models
that no policy is trained for), the newest reward models, which policies were trained for, and the general one. A
language model behind an address is asked in both orders; in a config of your own:

    config.head_to_head.judges.language_model = {
        "function": "llama2_jax.annotation.chat_api.annotate",
        "arguments": {"chat": {"base_url": "http://127.0.0.1:8000/v1", "model": "my-judge", "key_variable": ""}},
    }

Reaches (tiny, two seeds, code of f612a7b): V5 wins over SFT in 0.73 and 0.70 of the pairs that a rater decides, in
0.67 and 0.72 by the general reward model and in 0.96 and 0.89 by the reward models that policies were trained for.
Costs (tiny): 10 seconds of one CPU core, after the run of rlhf_v5.
Run: python -m llama2_jax.main --config=experiments/head_to_head.py[:<scale>[,<data>]] --config.source_run=<workdir>
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.choice import sources_of
from experiments.parts.ending import add_report
from experiments.parts.source_run import add_model, add_records, keep_settings_alone
from experiments.parts.stages import add_stage

VERSIONS = ("sft", "rlhf_v1", "rlhf_v2", "rlhf_v3", "rlhf_v4", "rlhf_v5_rejection_sampling", "rlhf_v5")

# By name, which of the rewards that an evaluation writes decides.
REWARD_JUDGES = {"reward_models": "combined", "general_reward": "general"}


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = rlhf_v1.start(argument)
    keep_settings_alone(config, "head_to_head")
    sources = sources_of(config)
    for name in sources.annotator_inputs.values():
        add_model(config, name)
    add_records(config, "evaluation", "evaluation")
    add_stage(config, "head_to_head", {
        "run": "llama2_jax.stages.head_to_head",
        "role": "head_to_head",
        "inputs": {"tokenizer": "tokenizer", "evaluation": "evaluation", **sources.annotator_inputs},
        "versions": VERSIONS,
        "baseline": "sft",
        "judges": {
            "rater": sources.annotator,
            **{name: reward_judge(reward) for name, reward in REWARD_JUDGES.items()},
        },
    })  # fmt: skip
    add_report(config)
    return config


def reward_judge(reward: str) -> dict:
    """Returns the judge that prefers the answer with the higher reward."""
    return {
        "function": "llama2_jax.annotation.reward_model.prefer_higher_reward",
        "arguments": {"reward": reward},
    }
