"""IPO on the first round's comparisons, evaluated with SFT and V1."""

from experiments import rlhf_v1
from experiments.parts.ending import with_evaluation
from experiments.parts.rounds import add_version
from experiments.parts.shared_settings import shared
from experiments.parts.stages import add_stage
from experiments.parts.training import optimization


def get_config(argument="tiny"):
    """V1 with one stage more."""
    config = rlhf_v1.training(argument)
    config.experiment = "ipo"
    group = config.reward_models
    add_stage(config, "ipo", {
        "run": "tests.docs.own_objective.stage",
        "role": "ipo",
        "inputs": {"tokenizer": "tokenizer", "policy": "sft", "annotations": ("rlhf_v1_annotation",)},
        "beta": 0.1,
        "length": shared(config.model, "max_length"),
        **{name: shared(group, name) for name in ("pairs_per_batch", "epochs", "too_long", "save_every", "log_every")},
        **optimization(config, learning_rate=1e-4, warmup_steps=5),
    })  # fmt: skip
    add_version(config, "ipo", "ipo")
    return with_evaluation(config)
