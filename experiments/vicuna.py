"""Vicuna: conversations that people shared, cleaned and split, with the loss on every answer (lmsys.org, March 2023).

A finished run of rlhf_v5, config.source_run, gives its tokenizer and its pretrained model. Conversations become
Markdown where they were HTML; those in other languages are left out, and long ones are split between turns
(llama2_jax/data/sharegpt.py). They are written in Vicuna's format. `all_turns` is trained on every answer of a
conversation, `last_turn` on the last one alone.

Reaches (tiny, one seed): helpfulness 0.72 with the loss on all answers and 0.62 with it on the last one (paired
difference 0.099, standard error 0.024), on the same 328 conversations in as many steps.
Costs (tiny): 4 minutes on 2 CPU cores that other work kept busy, after the run of rlhf_v5.
Run: python -m llama2_jax.main --config=experiments/vicuna.py[:<scale>[,<data>]] --config.source_run=<workdir>
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.choice import sources_of
from experiments.parts.ending import add_judged_answers, add_report
from experiments.parts.rounds import add_version
from experiments.parts.scales import by_scale
from experiments.parts.shared_settings import all_shared, shared
from experiments.parts.source_run import keep_base_model
from experiments.parts.stages import add_stage
from experiments.parts.training import finetuning_schedule

# By version, which answers of a conversation the loss is on (llama2_jax/data/records.py).
LOSSES = {"all_turns": "answers", "last_turn": "last"}


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = rlhf_v1.start(argument)
    keep_base_model(config, "vicuna", "vicuna")
    sources = sources_of(config)
    for name, loss in LOSSES.items():
        chats = {
            source: {**one, "defaults": {**one.get("defaults", {}), "loss": loss}}
            for source, one in sources.other_recipes.shared_chats.items()
        }
        add_stage(config, name, {
            "run": "llama2_jax.stages.finetune",
            "role": "finetuning",
            "inputs": {"tokenizer": "chat_tokenizer", "start": "pretrain"},
            "sources": chats,
            "held_out": {},
            "finetune": settings(config),
        })  # fmt: skip
        add_version(config, name, name)
    add_judged_answers(config, baseline="last_turn")
    add_report(config)
    return config


def settings(config: ConfigDict) -> dict:
    """Returns how Vicuna 13B was fine-tuned (FastChat's train_vicuna_13b.sh)."""
    scale, context = config.scale, shared(config.model, "max_length")
    return {
        **finetuning_schedule(config, epochs=3),
        "batch_size": by_scale(scale, {"tiny": 3}, paper=128),
        "length": by_scale(scale, {"tiny": context, "small": context}, paper=2048),
        "too_long": "split",
        "learning_rate": by_scale(scale, {"tiny": 1e-3, "small": 1e-4}, paper=2e-5),
        "warmup_steps": 0,
        "warmup_fraction": 0.04,
        "final_learning_rate_fraction": 0.0,
        "optimizer": {**all_shared(config.optimizer), "weight_decay": 0.0},
    }
