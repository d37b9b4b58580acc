"""Orca: explanation traces of a weaker teacher, then of a stronger one (Mukherjee et al. 2023, arXiv 2306.02707).

A finished run of rlhf_v5, config.source_run, gives its tokenizer and its pretrained model. A system message, drawn by
the sub-collection of a query, asks for the steps. `orca` learns from both teachers in this order, `bare` from the same
questions without the steps, `stronger_alone` from the second set only. All are asked questions of several steps that no
teacher has shown.

Reaches (tiny, one seed): of 200 sums of three numbers `orca` has 0.95 right and `bare` 0.26; the weaker teacher alone
brings 0.84, the stronger one alone 0.43. Sums of two numbers, which no teacher shows, are lost to all: 0.08 and 0.12.
Costs (tiny): 4 minutes on 2 CPU cores that other work kept busy, after the run of rlhf_v5.
Run: python -m llama2_jax.main --config=experiments/orca.py[:<scale>[,<data>]] --config.source_run=<workdir>
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.choice import sources_of
from experiments.parts.ending import add_judged_answers, add_report
from experiments.parts.rounds import add_version
from experiments.parts.scales import by_scale
from experiments.parts.shared_settings import shared
from experiments.parts.source_run import add_model, keep_settings_alone
from experiments.parts.stages import add_stage
from experiments.parts.training import finetuning_schedule


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = rlhf_v1.start(argument)
    keep_settings_alone(config, "orca")
    recipes = sources_of(config).other_recipes
    add_model(config, "pretrain")
    add_training(config, "orca_first", "pretrain", recipes.orca_first)
    add_training(config, "orca", "orca_first", recipes.orca_second)
    add_training(config, "bare_first", "pretrain", recipes.orca_bare_first)
    add_training(config, "bare", "bare_first", recipes.orca_bare_second)
    add_training(config, "stronger_alone", "pretrain", recipes.orca_second)
    for name in ("orca_first", "orca", "bare", "stronger_alone"):
        add_version(config, name, name)
    add_judged_answers(
        config,
        baseline="bare",
        inputs={"tokenizer": "tokenizer", "models": tuple(stage for _, stage in config.versions)},
        prompts=recipes.orca_questions,
        judge={"function": "llama2_jax.evaluation.right_answers.judge", "arguments": {"right": recipes.orca_right}},
        temperature=0.0,
        top_p=1.0,
    )
    add_report(config)
    return config


def add_training(config: ConfigDict, name: str, start: str, traces: dict) -> None:
    """Adds a fine-tuning on packed traces, the loss on the teacher's tokens alone (section 4)."""
    scale, context = config.scale, shared(config.model, "max_length")
    add_stage(config, name, {
        "run": "llama2_jax.stages.finetune",
        "role": "finetuning",
        "inputs": {"tokenizer": "tokenizer", "start": start},
        "sources": traces,
        "held_out": {},
        "finetune": {
            **finetuning_schedule(config, epochs=4),
            "length": by_scale(scale, {"tiny": context, "small": context}, paper=2048),
        },
    })  # fmt: skip
