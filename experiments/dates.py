"""A sense of time: 1,000 examples with the dates of query and event (section 5.1; figure 22).

A finished run of rlhf_v5, config.source_run, gives its fine-tuned model. Two are fine-tuned from it on what happens in
which year: `undated` on that alone, `dated` besides on examples in which the system message has the year of the
question, and what is still to come has not happened yet. All are asked about events that no dated example has, in years
from before them to after them. Real examples are files of yours (docs/data.md); pretraining has the knowledge.

Reaches (tiny, one seed): of 600 questions about held-out events `dated` says of 0.91 rightly whether the event has
happened, `undated` of 0.55; in the event's own year of 0.66. Of the helpfulness on ordinary prompts, 0.56, it loses
0.08, and `undated` 0.11 (docs/findings.md).
Costs (tiny): 12 minutes on 2 busy CPU cores, after the run of rlhf_v5.
Run: python -m llama2_jax.main --config=experiments/dates.py[:<scale>[,<data>]] --config.source_run=<workdir>
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.choice import sources_of
from experiments.parts.ending import add_report
from experiments.parts.scales import by_scale
from experiments.parts.shared_settings import shared
from experiments.parts.source_run import add_model, keep_settings_alone
from experiments.parts.stages import add_stage
from experiments.parts.training import finetuning_schedule


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = rlhf_v1.start(argument)
    keep_settings_alone(config, "dates")
    sources = sources_of(config)
    dates = sources.dates
    for name in ("sft", *sources.annotator_inputs.values()):
        add_model(config, name)
    trained = {"dated": {**dates.knowledge, **dates.dated_examples}}
    if dates.knowledge:
        trained = {"undated": dates.knowledge, **trained}
    for name, of in trained.items():
        add_stage(config, name, {
            "run": "llama2_jax.stages.finetune",
            "role": "finetuning",
            "inputs": {"tokenizer": "tokenizer", "start": "sft"},
            "sources": of,
            "held_out": {},
            "finetune": finetuning_schedule(config, epochs=by_scale(config.scale, {"tiny": 4}, paper=2)),
        })  # fmt: skip
    versions = ("sft", *trained)
    add_stage(config, "dates", {
        "run": "llama2_jax.stages.dates",
        "role": "dates",
        "inputs": {"tokenizer": "tokenizer", "models": versions, **sources.annotator_inputs},
        "versions": versions,
        "questions": dates.questions,
        "right": dates.right,
        "prompts": sources.evaluation_prompts,
        "judge": sources.judge,
        "temperature": 0.0,  # not stated
        "top_p": 1.0,
        "max_new_tokens": shared(config, "answer_tokens"),
    })  # fmt: skip
    add_report(config)
    return config
