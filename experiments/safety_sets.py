"""The paper's automatic safety benchmarks and false refusals (sections 4.1, 4.2.3 and 4.4; tables 11, 14, 44 to 49).

A finished run of rlhf_v5, config.source_run, gives its models; `of_checkpoint` takes any other. They answer TruthfulQA,
ToxiGen and BOLD, whose files are read under data.root, and prompts that only sound unsafe. The miniature has the last
alone; with a data root it answers the others too. BOLD needs `pip install -e '.[safety_sets]'`. Who judges TruthfulQA
and ToxiGen is for you to name (docs/bring_your_own.md):

    --config.safety_sets.truthfulqa.truth.function=llama2_jax.evaluation.truthfulqa.overlap_truth
    --config.safety_sets.truthfulqa.informative.function=llama2_jax.evaluation.truthfulqa.overlap_informative
    --config.safety_sets.toxigen.classifier.function=llama2_jax.evaluation.toxicity.huggingface_classifier

Reaches (tiny, one seed): of 30 harmless prompts that sound unsafe V1 refuses 10, SFT and V3 to V5 none; the classifier
finds every one of 200 refusals among 500 labelled answers. On XSTest's it has precision 0.97 and recall 0.84 (n=1,090).
Costs (tiny): 20 seconds of one CPU core, after the run of rlhf_v5; 4 minutes with a data root.
Run: python -m llama2_jax.main --config=experiments/safety_sets.py[:<scale>[,<data>]] --config.source_run=<workdir>
"""

from collections.abc import Mapping

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.choice import sources_of
from experiments.parts.ending import add_report
from experiments.parts.safety_files import TOXIGEN_GROUPS
from experiments.parts.scales import by_scale
from experiments.parts.shared_settings import shared
from experiments.parts.source_run import SOME_VERSIONS, add_model, keep_settings_alone
from experiments.parts.stages import add_stage


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = _start(argument)
    for name in SOME_VERSIONS.values():
        add_model(config, name)
    return _with_sets(config, SOME_VERSIONS, chat=True)


def of_checkpoint(argument: str, folder: str, *, chat: bool) -> ConfigDict:
    """The same for one model, of the scale's size, in a folder of this project's format (llama2_jax.convert).

    Args:
      argument: as for `get_config`.
      folder: the model's, with its tokenizer.
      chat: whether it answers in the chat format; a pretrained model continues the texts.
    """
    config = _start(argument)
    config.source_run = folder
    add_model(config, "checkpoint")
    config.tokenizer.folder = config.checkpoint.folder = folder
    return _with_sets(config, {"checkpoint": "checkpoint"}, chat=chat)


def _start(argument: str) -> ConfigDict:
    config = rlhf_v1.start(argument)
    keep_settings_alone(config, "safety_sets")
    return config


def _function(path: str = "") -> dict:
    """A judge or a classifier; by default none. Each is a dict of its own: one that two fields share would be one."""
    return {"function": path, "arguments": {}}


def _with_sets(config: ConfigDict, models: Mapping[str, str], *, chat: bool) -> ConfigDict:
    sources = sources_of(config)
    # Of a group, evenly spaced; 0 is all.
    few = {"prompts_per_group": by_scale(config.scale, {"tiny": 20, "small": 100}, paper=0)}
    add_stage(config, "safety_sets", {
        "run": "llama2_jax.stages.safety_sets",
        "role": "safety_sets",
        "inputs": {"tokenizer": "tokenizer", "models": tuple(models.values())},
        "versions": tuple(models),
        "chat": chat,  # whether a prompt is a user's message; else a text to continue
        "truthfulqa": {
            **sources.safety_files["truthfulqa"],
            "prompts_per_group": by_scale(config.scale, {"tiny": 100}, paper=0),
            "truth": _function(),
            "informative": _function(),
        },
        "toxigen": {
            **sources.safety_files["toxigen"],
            **few,
            "groups": TOXIGEN_GROUPS,
            "classifier": _function(),
        },
        # The paper left out two groups, of 12 and of 29 prompts.
        "bold": {**sources.safety_files["bold"], **few, "fewest_prompts": 30},
        "borderline": {
            "prompts": sources.borderline_prompts,
            "classifier": _function("llama2_jax.evaluation.refusals.refusals"),
            "labelled": sources.labelled_refusals,
        },
        "temperature": 0.1,
        "top_p": 0.9,
        "max_new_tokens": shared(config, "answer_tokens"),
    })  # fmt: skip
    add_report(config)
    return config
