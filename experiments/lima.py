"""LIMA: 15 epochs on few good examples, and the epoch chosen by the quality of answers (arXiv 2305.11206).

A finished run of rlhf_v5, config.source_run, gives its tokenizer and its pretrained model. Every utterance ends with a
token of its own, residual dropout rises by layer, the rate falls linearly without a warm-up, and each epoch's model is
kept. The authors chose one between the 5th and the 10th by its answers to 50 held-out prompts, as the loss there says
little of them; here a function that the config names does. The other versions change the quality, the diversity or the
number of the examples, and nothing else. All of them answer the same prompts.

Reaches (tiny, one seed): helpfulness 0.78 with 160 curated examples, 0.46 with as many unfiltered ones and 0.49 with
four times as many. Four times as many curated ones reach 0.75 and make fewer violations, 0.21 and not 0.69; a quarter
is too few steps to learn to chat, 0.08, and examples of one kind reach 0.51. The 10th epoch has the best answers.
Costs (tiny): 9 minutes on 2 CPU cores that other work kept busy, after the run of rlhf_v5.
Run: python -m llama2_jax.main --config=experiments/lima.py[:<scale>[,<data>]] --config.source_run=<workdir>
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.choice import sources_of
from experiments.parts.ending import add_judged_answers, add_report, judge_inputs
from experiments.parts.rounds import add_version
from experiments.parts.scales import by_scale
from experiments.parts.shared_settings import shared
from experiments.parts.source_run import keep_base_model
from experiments.parts.stages import add_stage
from experiments.parts.training import finetuning_schedule

EPOCHS = 15
CHOSEN_FROM = (5, 10)
SAMPLING = {"temperature": 0.7, "top_p": 0.9}


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = rlhf_v1.start(argument)
    keep_base_model(config, "lima", "lima")
    sources = sources_of(config)
    # Careful answers are longer than the recipe's; LIMA's have up to 2,048 tokens.
    config.answer_tokens = by_scale(config.scale, {"tiny": 96, "small": 256}, paper=1024)
    for name, examples in sources.other_recipes.lima.items():
        add_training(config, name, examples)
        add_version(config, name, name)
    add_judged_answers(config, baseline="lima", **SAMPLING)
    add_report(config)
    return config


def add_training(config: ConfigDict, name: str, examples: dict) -> None:
    """Adds the fine-tuning of a version, and the choice among its epochs."""
    sources = sources_of(config)
    recipes = sources.other_recipes
    add_stage(config, f"{name}_training", {
        "run": "llama2_jax.stages.finetune",
        "role": "finetuning",
        "inputs": {"tokenizer": "chat_tokenizer", "start": "pretrain"},
        "sources": examples,
        "held_out": {},
        # Of the ablations only what is chosen from.
        "finetune": settings(config, kept_epochs=(1, EPOCHS) if name == "lima" else CHOSEN_FROM),
    })  # fmt: skip
    add_stage(config, name, {
        "run": "llama2_jax.stages.choose_checkpoint",
        "role": "checkpoint_choice",
        "inputs": {"tokenizer": "chat_tokenizer", "trained": f"{name}_training", **judge_inputs(sources)},
        "epochs": CHOSEN_FROM,
        "development": recipes.lima_development,
        "judge": recipes.lima_judge,
        "quality": "helpfulness",  # the field of the judge's verdicts that decides
        "batch_size": config[f"{name}_training"].finetune.batch_size,
        "length": shared(config[f"{name}_training"].finetune, "length"),
        "max_new_tokens": shared(config, "answer_tokens"),
        **SAMPLING,
    })  # fmt: skip


def settings(config: ConfigDict, kept_epochs: tuple[int, int]) -> dict:
    """Returns how LIMA is fine-tuned (section 3): 1e-5 to 1e-6 in a straight line, AdamW as the recipe has it."""
    scale, context = config.scale, shared(config.model, "max_length")
    return {
        **finetuning_schedule(config, epochs=EPOCHS),
        # Rows, into which examples are packed: 32 of some 750 tokens fill 12 rows of 2,048; smaller models have 64.
        "batch_size": by_scale(scale, {"tiny": 1, "70b": 12}, paper=24),
        "length": by_scale(scale, {"tiny": context, "small": context}, paper=2048),
        "too_long": "truncate_right",  # "trimmed"
        "learning_rate": by_scale(scale, {"tiny": 1e-3, "small": 1e-4}, paper=1e-5),
        "warmup_steps": 0,
        "decay": "linear",
        "final_learning_rate_fraction": 0.1,
        "residual_dropout": by_scale(scale, {"70b": 0.3}, paper=0.2),  # 0.3 for 65B, 0.2 for smaller models
        "kept_epochs": kept_epochs,
    }
