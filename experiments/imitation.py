"""The false promise of imitation: answers of a stronger chatbot, learnt broadly and for one task (arXiv 2305.15717).

A finished run of rlhf_v5, config.source_run, gives its base model and its tokenizer. The base model is fine-tuned on
more and more of a teacher's answers to all kinds of questions (broad imitation), and on those to questions of one kind,
of which it knows little (targeted imitation; in the miniature sums). Measured are the style, beside the teacher's own
answers to the same prompts, and what is right. For another size of model, give a source_run of that size.

Reaches (tiny, seed 13): style is imitated after 400 answers (tone 0.99, overlap of words 0.70), and what is right rises
too, of sums from 0.52 to 0.71, for the base model knows them and learns to say them; 1,600 answers to sums alone reach
0.66. So the false promise does not show here (docs/findings.md).
Costs (tiny): 14 minutes on 2 CPU cores that other work kept busy, after the run of rlhf_v5.
Run: python -m llama2_jax.main --config=experiments/imitation.py[:<scale>[,<data>]] --config.source_run=<workdir>
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.choice import sources_of
from experiments.parts.ending import add_judged_answers, add_report
from experiments.parts.rounds import add_version
from experiments.parts.scales import by_scale
from experiments.parts.shared_settings import all_shared, shared
from experiments.parts.source_run import add_model, keep_settings_alone
from experiments.parts.stages import add_stage
from experiments.parts.training import finetuning_schedule


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = rlhf_v1.start(argument)
    sources = sources_of(config).imitation
    keep_settings_alone(config, "imitation")
    add_model(config, "pretrain")
    for name, data in sources.versions.items():
        add_stage(config, name, {
            "run": "llama2_jax.stages.finetune",
            "role": "finetuning",
            "inputs": {"tokenizer": "tokenizer", "start": "pretrain"},
            "sources": data,
            "held_out": {},
            "finetune": settings(config),
        })  # fmt: skip
        add_version(config, name, name)
    add_judged_answers(
        config,
        baseline=config.versions[0][0],
        inputs={"tokenizer": "tokenizer", "models": tuple(stage for _, stage in config.versions)},
        prompts=sources.asked,
        judge={"function": "llama2_jax.evaluation.imitation.judge", "arguments": {}},
        measures="llama2_jax.evaluation.imitation.MEASURES",
    )
    add_report(config)
    return config


def settings(config: ConfigDict) -> dict:
    """Returns how imitators are fine-tuned: one epoch, rows of 2,048 tokens, batch 32, 1,000 steps of warm-up.

    Their rate of 2e-3 is for updates scaled by the size of each weight; for AdamW it is the recipe's.
    """
    scale, context = config.scale, shared(config.model, "max_length")
    return {
        **finetuning_schedule(config, epochs=by_scale(scale, {"tiny": 3}, paper=1)),
        "batch_size": by_scale(scale, {"tiny": 3}, paper=32),
        "length": by_scale(scale, {"tiny": context, "small": context}, paper=2048),
        "too_long": by_scale(scale, {}, paper="drop"),
        "warmup_steps": by_scale(scale, {"tiny": 5, "small": 20}, paper=1000),
        "optimizer": all_shared(config.optimizer),
    }
