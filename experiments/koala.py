"""Koala: one model of good and bad answers, told apart by a marker (Geng et al., BAIR blog, April 2023).

A finished run of rlhf_v5, config.source_run, gives its tokenizer and its pretrained model. Conversations with a chatbot
and comparisons are mixed. A comparison is two dialogues: the better answer behind "a helpful answer", the other one
behind "an unhelpful answer". Conversations have the first marker, and so has whatever the model is asked in the end. It
answers the same prompts once under each marker.

Reaches (tiny, one seed): helpfulness 0.65 under the first marker and 0.58 under the second (paired difference 0.068,
standard error 0.026), above all in style, 0.63 and 0.47; violations 0.54 and 0.65.
Costs (tiny): 2 minutes on 2 CPU cores that other work kept busy, after the run of rlhf_v5.
Run: python -m llama2_jax.main --config=experiments/koala.py[:<scale>[,<data>]] --config.source_run=<workdir>
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.choice import sources_of
from experiments.parts.ending import add_judged_answers, add_report
from experiments.parts.other_recipes import UNHELPFUL
from experiments.parts.rounds import add_version
from experiments.parts.scales import by_scale
from experiments.parts.shared_settings import shared
from experiments.parts.source_run import keep_base_model
from experiments.parts.stages import add_stage
from experiments.parts.training import finetuning_schedule


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = rlhf_v1.start(argument)
    keep_base_model(config, "koala", "koala_marked")
    sources = sources_of(config)
    scale, context = config.scale, shared(config.model, "max_length")
    add_stage(config, "koala", {
        "run": "llama2_jax.stages.finetune",
        "role": "finetuning",
        "inputs": {"tokenizer": "chat_tokenizer", "start": "pretrain"},
        "sources": {**sources.other_recipes.shared_chats, **sources.other_recipes.marked_comparisons},
        "held_out": {},
        "finetune": {
            **finetuning_schedule(config, epochs=2),
            "length": by_scale(scale, {"tiny": context, "small": context}, paper=2048),
            "too_long": "split",
        },
    })  # fmt: skip
    add_version(config, "koala", "koala")
    marked = {
        "function": "llama2_jax.data.system_messages.marked",
        "arguments": {"marker": UNHELPFUL},
    }
    unhelpful = {name: {**one, "prepare": marked} for name, one in sources.evaluation_prompts.items()}
    name = "koala_unhelpful"  # before the version that is to be used, which the report calls the newest
    add_judged_answers(config, name="unhelpful_evaluation", versions=(name,), baseline=name, prompts=unhelpful)
    add_judged_answers(config, baseline="koala")
    add_report(config)
    return config
