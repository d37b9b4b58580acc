"""GPT4All: a teacher's answers curated, low-rank adapters beside a frozen model, a release in 4 bits.

A finished run of rlhf_v5, config.source_run, gives its base model, its tokenizer and its reward models. Refusals, very
short and malformed answers are left out (stages/curate.py). The base model is fine-tuned on the rest as a whole, with
adapters, and with adapters beside matrices in 4 bits (QLoRA); the second is released in 8 and in 4 bits. All are
compared by the perplexity of held-out answers, clipped at 100 an answer as in GPT4All's report, and by the evaluation.

Reaches (tiny, seed 13): held-out answers have a perplexity of 2.12 for the whole model, 2.14 with rank-8 adapters and
2.13 with QLoRA, whose differences are within 1.3 standard errors; released in 8 bits 2.14, in 4 bits 2.16. Wholly right
answers are 0.66, 0.62, 0.58, 0.61 and 0.58. With the refusals curated away, all comply with every unsafe request.
Costs (tiny): 14 minutes on 2 CPU cores that other work kept busy, after the run of rlhf_v5.
Run: python -m llama2_jax.main --config=experiments/gpt4all.py[:<scale>[,<data>]] --config.source_run=<workdir>
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.choice import sources_of
from experiments.parts.ending import with_evaluation
from experiments.parts.ppo import REWARD_MODELS
from experiments.parts.rounds import add_version
from experiments.parts.scales import by_scale
from experiments.parts.source_run import keep_models
from experiments.parts.stages import add_stage
from experiments.parts.training import finetuning_schedule

# By version, the adapters' rank and the form of what is frozen; rank 0 trains everything.
TRAINED = {"full": (0, ""), "lora": (8, ""), "qlora": (8, "int4")}
RELEASED = {"lora_int8": "int8", "lora_int4": "int4"}


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = rlhf_v1.start(argument)
    sources = sources_of(config)
    keep_models(config, "gpt4all", ("pretrain",))
    add_stage(config, "curated", {
        "run": "llama2_jax.stages.curate",
        "role": "curation",
        "inputs": {"tokenizer": "tokenizer"},
        "sources": sources.demonstrations,
        "classifier": {"function": "llama2_jax.evaluation.refusals.refusals", "arguments": {}},
        "fewest_words": by_scale(config.scale, {}, paper=3),  # "very short"; how short is not said
    })  # fmt: skip
    for name, (rank, quantize) in TRAINED.items():
        add_finetuning(config, name, rank, quantize)
    for name, form in RELEASED.items():
        add_stage(config, name, {
            "run": "llama2_jax.stages.quantize",
            "role": "release",
            "inputs": {"tokenizer": "tokenizer", "model": "lora"},
            "quantize": form,
        })  # fmt: skip
        add_version(config, name, name)
    add_perplexity(config)
    return with_evaluation(config, baseline="full", reward_models=REWARD_MODELS)


def add_finetuning(config: ConfigDict, name: str, rank: int, quantize: str) -> None:
    """Adds a version that is fine-tuned from the base model on the curated dialogues."""
    schedule = finetuning_schedule(config, epochs=2)
    add_stage(config, name, {
        "run": "llama2_jax.stages.finetune",
        "role": "finetuning",
        "inputs": {"tokenizer": "tokenizer", "start": "pretrain", "dialogues": ("curated",)},
        "sources": {},
        "held_out": {},
        "finetune": {
            **schedule,
            # Adapters want about ten times the rate.
            "learning_rate": config.finetuning.learning_rate * (10 if rank else 1),
            "adapters": {**config.adapters, "rank": rank, "quantize": quantize},
        },
    })  # fmt: skip
    add_version(config, name, name)


def add_perplexity(config: ConfigDict) -> None:
    """Adds the perplexity of held-out answers, by every version."""
    add_stage(config, "perplexity", {
        "run": "llama2_jax.stages.perplexity",
        "role": "perplexity",
        "inputs": {"tokenizer": "tokenizer", "models": tuple(stage for _, stage in config.versions)},
        "versions": tuple(name for name, _ in config.versions),
        "sources": sources_of(config).held_out_demonstrations,
        "clip": 100.0,
    })  # fmt: skip
