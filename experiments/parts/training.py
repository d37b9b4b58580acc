"""How models are trained: AdamW and its schedule, fine-tuning, reward models (sections 2.2, 3.1 and 3.2.2).

What all trainings of a kind share is a group of the experiment's config (`optimizer`, `finetuning`, `reward_models`),
to which the stages' own fields refer.
"""

from ml_collections import ConfigDict, FieldReference

from experiments.parts.choice import sources_of
from experiments.parts.scales import by_scale
from experiments.parts.shared_settings import all_shared, shared

# Section 2.2. moments_dtype may be bfloat16: half the memory of AdamW's moments.
ADAMW = {"b1": 0.9, "b2": 0.95, "eps": 1e-5, "weight_decay": 0.1, "clip": 1.0, "moments_dtype": "float32"}

# Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) in place of all parameters, where the rank is not 0. The paper of
# Llama 2 trains all. Adapters want about ten times the learning rate.
ADAPTERS = {
    "rank": 0,
    "alpha": 16.0,
    "targets": ("query", "key", "value", "output", "gate", "up", "down"),
    "dropout": 0.0,
    "quantize": "",  # "int8" or "int4": what is frozen is stored so (QLoRA)
}


def optimization(
    config: ConfigDict,
    *,
    learning_rate: float | FieldReference,
    warmup_steps: int | FieldReference = 0,
    warmup_fraction: float | FieldReference = 0.0,
    final_fraction: float = 0.1,
    decay: str = "cosine",
) -> dict:
    """Returns what all training stages have: the optimizer, a cosine to a tenth of the peak (section 2.2), adapters."""
    return {
        "learning_rate": learning_rate,
        "warmup_steps": warmup_steps,  # at least so many
        "warmup_fraction": warmup_fraction,  # and at least this part of all steps
        "decay": decay,  # "cosine" or "linear", to the final rate
        "final_learning_rate_fraction": final_fraction,
        "optimizer": all_shared(config.optimizer),
        "adapters": all_shared(config.adapters),
    }


def row_length(config: ConfigDict) -> FieldReference:
    """Returns how many tokens a row has in pretraining and in the training of reward models.

    It is the context, and in tiny a third of it: only dialogues of many turns, which fine-tuning reads in whole rows,
    need all of the miniature's context, and attention over a row costs its length squared. Changing
    config.model.max_length changes both.
    """
    scale, context = config.scale, config.model.get_ref("max_length")
    return by_scale(scale, {"tiny": context // 3}, paper=shared(config.model, "max_length"))


def finetuning_settings(config: ConfigDict) -> dict:
    """Returns what all fine-tunings on dialogues share, config.finetuning: batch 64, cosine from 2e-5 (section 3.1)."""
    scale, sources = config.scale, sources_of(config)
    learning_rate = by_scale(scale, {"tiny": 1e-3, "small": 1e-4, "1b": 4e-5}, paper=2e-5)
    from_base_model = sources.start_after_sampling == "pretrain"
    return {
        "batch_size": by_scale(scale, {"tiny": 3}, paper=64),  # rows of the whole context
        # In tiny few dialogues need such rows; the others' batches have shorter ones, and as many tokens. 0 for none.
        "short_length": by_scale(scale, {"tiny": config.model.get_ref("max_length") // 3}, paper=0),
        "learning_rate": learning_rate,
        # "Like SFT" (section 3.2.3); more gently where it starts from a chat model.
        "learning_rate_after_sampling": learning_rate if from_base_model else learning_rate / 2,
        "warmup_steps": by_scale(scale, {"tiny": 5}, paper=0),  # not stated in the paper
        "accumulation": by_scale(scale, {"1b": 8}, paper=1),
        "too_long": sources.too_long_dialogues,
        "evaluate_every": 100,
        "held_out_batches": 8,
        "save_every": 200,
        "log_every": 10,
    }


def finetuning_schedule(config: ConfigDict, epochs: int, learning_rate: str = "learning_rate") -> dict:
    """Returns how a model is fine-tuned on dialogues, here and after rejection sampling.

    Args:
      config: the experiment, with config.finetuning.
      epochs: over all dialogues.
      learning_rate: the field of config.finetuning to take it from.
    """
    group = config.finetuning
    names = (
        "batch_size", "short_length", "accumulation", "too_long", "evaluate_every", "held_out_batches", "save_every",
        "log_every",
    )  # fmt: skip
    return {
        **{name: shared(group, name) for name in names},
        "length": shared(config.model, "max_length"),
        "epochs": epochs,
        "kept_epochs": (),  # the first and the last of those whose models are kept, to choose one of them
        "residual_dropout": 0.0,  # of the last layer; it rises from 0 at the first (LIMA)
        **optimization(
            config,
            learning_rate=shared(group, learning_rate),
            warmup_steps=shared(group, "warmup_steps"),
        ),
    }


def reward_model_settings(config: ConfigDict) -> dict:
    """Returns what all reward models share, config.reward_models: one epoch, 512 pairs, margins (section 3.2.2)."""
    scale = config.scale
    return {
        "pairs_per_batch": by_scale(scale, {"tiny": 16, "small": 64}, paper=512),
        "learning_rate": by_scale(scale, {"tiny": 2e-3, "small": 5e-5, "70b": 5e-6}, paper=1e-5),
        # The most to read of a file of comparisons by people.
        "human_comparisons": by_scale(scale, {"tiny": 800}, paper=1_000_000_000),
        "margin": "small",  # the final choice is not stated; small has the best average of table 28
        "safety_auxiliary_weight": 1.0,  # not stated
        # Of the answers called unsafe: 0.15 had it on Meta's test set, and the threshold that has it here is reported.
        "unsafe_precision": 0.89,
        # Helpfulness: half its own data, half safety and open data. Safety: a tenth helpfulness data.
        "other_fraction": {"helpfulness": 0.5, "safety": 0.1},
        "epochs": 1,
        "warmup_steps": 5,
        "warmup_fraction": 0.03,
        "accumulation": by_scale(scale, {"tiny": 1, "small": 4, "1b": 64}, paper=4),
        "too_long": sources_of(config).too_long_comparisons,
        "save_every": 200,
        "log_every": 10,
    }


def reward_model(config: ConfigDict, kind: str) -> dict:
    """Returns how a reward model of a kind, "helpfulness", "safety" or "general", is trained and on which files."""
    group, sources = config.reward_models, sources_of(config)
    names = (
        "pairs_per_batch", "margin", "safety_auxiliary_weight", "unsafe_precision", "epochs", "accumulation",
        "too_long", "save_every", "log_every",
    )  # fmt: skip
    return {
        "kind": kind,
        # Comparisons from files that count as the model's own.
        "preferences": sources.preferences(shared(group, "human_comparisons")),
        "open_preferences": sources.open_preferences,
        "test_preferences": sources.test_preferences,
        "prompt_fraction": 1.0,  # of the prompts, those whose comparisons are trained on
        **{name: shared(group, name) for name in names},
        # A general reward model takes all that it is given.
        **({"other_fraction": shared(group.other_fraction, kind)} if kind in group.other_fraction else {}),
        "safety_threshold": shared(config, "safety_threshold"),
        "length": row_length(config),
        **optimization(
            config,
            learning_rate=shared(group, "learning_rate"),
            warmup_steps=shared(group, "warmup_steps"),
            warmup_fraction=shared(group, "warmup_fraction"),
        ),
    }
