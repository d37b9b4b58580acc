"""Tools in generation, and table 15: word problems without a calculator and with one (section 5.1).

A finished run of rlhf_v5, config.source_run, gives its last model. It answers every question once as it is asked, and
once with the calculator, which the prompt describes (llama2_jax/text/tool_calls.py). On real data these are SVAMP's,
zero-shot as in the paper. The miniature asks its own sums instead, and a version is fine-tuned on demonstrations of
calls besides: in a million parameters nothing emerges.

Reaches (tiny, one seed): with the calculator 71 % of unseen sums are right, without it 24 %; of sums of three numbers
46 and 12 %. Where totals are above all that training has, 2 and 1 %: of 200 first queries 9 are those asked for
(docs/findings.md). Before the fine-tuning the model makes no call.
Costs (tiny): 6 minutes on 2 busy CPU cores, after the run of rlhf_v5.
Run: python -m llama2_jax.main --config=experiments/tools.py[:<scale>[,<data>]] --config.source_run=<workdir>
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.choice import sources_of
from experiments.parts.ending import add_report
from experiments.parts.scales import by_scale
from experiments.parts.source_run import add_model, keep_settings_alone
from experiments.parts.stages import add_stage
from experiments.parts.training import finetuning_schedule


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = rlhf_v1.start(argument)
    keep_settings_alone(config, "tools")
    sources = sources_of(config).tools
    versions = {"rlhf_v5": "rlhf_v5_ppo"}
    add_model(config, "rlhf_v5_ppo")
    if sources.demonstrations:
        add_stage(config, "tool_sft", {
            "run": "llama2_jax.stages.finetune",
            "role": "finetuning",
            "inputs": {"tokenizer": "tokenizer", "start": "rlhf_v5_ppo"},
            "sources": sources.demonstrations,
            "held_out": {},
            "finetune": finetuning_schedule(config, epochs=4),
        })  # fmt: skip
        versions["tool_sft"] = "tool_sft"
    add_stage(config, "tools", {
        "run": "llama2_jax.stages.tools",
        "role": "tools",
        "inputs": {"tokenizer": "tokenizer", "models": tuple(versions.values())},
        "versions": tuple(versions),
        # By name the description for the prompt, and the function.
        "tools": sources.tools,
        "questions": sources.questions,
        # Whether a response has a question's answer.
        "right": sources.right,
        "benchmarks": "benchmarks",  # a folder under data.root
        "benchmark_tasks": sources.tasks,
        "questions_per_task": by_scale(config.scale, {"tiny": 100}, paper=0),  # the first ones; 0 is all
        "most_calls": 4,
        "result_characters": 400,
        "temperature": 0.0,  # not stated
        "top_p": 1.0,
        # Of an answer, its calls and their results too.
        "max_new_tokens": by_scale(config.scale, {"tiny": 144}, paper=512),
    })  # fmt: skip
    add_report(config)
    return config
