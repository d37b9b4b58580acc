"""Direct preference optimisation on the comparisons of all five rounds, in place of reward models and PPO.

A finished run of rlhf_v5, config.source_run, gives its tokenizer, its comparisons and its models. From SFT, and from
V5's rejection-sampling model where the recipe has PPO, DPO (Rafailov et al. 2023) trains on what the last round's
reward models trained on: the same annotation budget. All are evaluated side by side.

Reaches (tiny, seeds 0 and 8): from SFT true helpfulness 0.65 and 0.63 from 0.53, where V5 without PPO reaches 0.64 and
0.61, with better style, fewer right answers and twice the violations. On top of V5 without PPO the seeds disagree:
0.60 and 0.66, with fewer violations than it on both (docs/findings.md).
Costs (tiny): 25 minutes on 2 CPU cores that other work kept busy, after the run of rlhf_v5.
Run: python -m llama2_jax.main --config=experiments/dpo.py[:<scale>[,<data>]] --config.source_run=<workdir>
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.choice import sources_of
from experiments.parts.ending import with_evaluation
from experiments.parts.ppo import REWARD_MODELS
from experiments.parts.rounds import add_version
from experiments.parts.scales import by_scale
from experiments.parts.shared_settings import all_shared, shared
from experiments.parts.source_run import ROUNDS, add_records, keep_models
from experiments.parts.stages import add_stage
from experiments.parts.training import optimization, row_length

COMPARISONS = tuple(f"rlhf_v{number}_annotation" for number in ROUNDS)
REJECTION_SAMPLING = "rlhf_v5_rejection_sampling"
# By version the stage with its model. DPO's own are trained here, each from the version before it.
VERSIONS = {
    "sft": "sft",
    "sft_dpo": "sft_dpo",
    REJECTION_SAMPLING: REJECTION_SAMPLING,
    "rejection_sampling_dpo": "rejection_sampling_dpo",
    "rlhf_v5": "rlhf_v5_ppo",
}
TRAINED = {"sft_dpo": "sft", "rejection_sampling_dpo": REJECTION_SAMPLING}


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = rlhf_v1.start(argument)
    keep_models(config, "dpo", (stage for stage in VERSIONS.values() if stage not in TRAINED))
    for name in COMPARISONS:
        add_records(config, name, "annotation")
    config.dpo = settings(config)
    for name, policy in TRAINED.items():
        add_dpo(config, name, policy)
    for name, stage in VERSIONS.items():
        add_version(config, name, stage)
    return with_evaluation(config, reward_models=REWARD_MODELS)


def settings(config: ConfigDict) -> dict:
    """What both trainings share, config.dpo: in tiny ours, at other scales those of DPO's authors (docs/choices.md)."""
    scale = config.scale
    return {
        "beta": by_scale(scale, {}, paper=0.1),  # the weight of the KL to the start; the lower, the further it goes
        "label_smoothing": 0.0,  # the share of comparisons that are taken to be the wrong way round
        "pairs_per_batch": by_scale(scale, {"tiny": 16}, paper=64),
        "epochs": 1,
        "accumulation": by_scale(scale, {"tiny": 1, "small": 4, "1b": 16}, paper=2),
        "too_long": sources_of(config).too_long_comparisons,
        "evaluate_every": by_scale(scale, {"tiny": 50}, paper=200),
        "held_out_batches": 8,
        "save_every": 200,
        "log_every": 10,
        "learning_rate": by_scale(scale, {"tiny": 1e-4, "small": 5e-6}, paper=5e-7),
        "warmup_steps": by_scale(scale, {"tiny": 10}, paper=150),
    }


def add_dpo(config: ConfigDict, name: str, policy: str) -> None:
    """Adds the training of a policy, which is its own reference."""
    sources, group = sources_of(config), all_shared(config.dpo)
    rates = {field: group.pop(field) for field in ("learning_rate", "warmup_steps")}
    add_stage(config, name, {
        "run": "llama2_jax.stages.dpo",
        "role": "dpo",
        "inputs": {"tokenizer": "tokenizer", "policy": policy, "annotations": COMPARISONS},
        # Comparisons by people from files, as the recipe's reward models read them beside the rounds' own.
        "preferences": sources.preferences(shared(config.reward_models, "human_comparisons")),
        "test_preferences": sources.test_preferences,
        "length": row_length(config),
        **group,
        **optimization(config, final_fraction=1.0, **rates),  # constant behind the warm-up
    })  # fmt: skip
