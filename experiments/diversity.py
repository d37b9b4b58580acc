"""How diverse answers are over the temperature, before and after RLHF (section 5.1, figure 21).

A finished run of rlhf_v5, config.source_run, gives its models. SFT, V1, V3 and V5 without PPO and with it answer ten
factual and ten creative prompts 25 times at each temperature; Self-BLEU says how alike the answers are.

Reaches (tiny, two seeds): at temperature 1.4 Self-BLEU rises from 63 (SFT) to 83 (V5) on factual prompts, from 71 to 82
on creative ones (docs/findings.md).
Costs (tiny): a minute on 2 CPU cores, after the run of rlhf_v5.
Run: python -m llama2_jax.main --config=experiments/diversity.py[:<scale>[,<data>]] --config.source_run=<workdir>
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.choice import sources_of
from experiments.parts.ending import add_report
from experiments.parts.scales import by_scale
from experiments.parts.shared_settings import shared
from experiments.parts.source_run import SOME_VERSIONS, add_model, keep_settings_alone
from experiments.parts.stages import add_stage

# The paper has every tenth up to 1.5.
TEMPERATURES = tuple(tenths / 10 for tenths in range(1, 16))
SOME_TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4)


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = rlhf_v1.start(argument)
    keep_settings_alone(config, "diversity")
    sources = sources_of(config)
    for name in SOME_VERSIONS.values():
        add_model(config, name)
    add_stage(config, "diversity", {
        "run": "llama2_jax.stages.diversity",
        "role": "diversity",
        "inputs": {"tokenizer": "tokenizer", "models": tuple(SOME_VERSIONS.values())},
        "versions": tuple(SOME_VERSIONS),
        "prompts": sources.diversity_prompts,
        "kinds": sources.diversity_kinds,
        "prompts_per_kind": 10,
        "answers_per_prompt": 25,
        "temperatures": by_scale(config.scale, {"tiny": SOME_TEMPERATURES}, paper=TEMPERATURES),
        "top_p": 1.0,
        "max_new_tokens": shared(config, "answer_tokens"),
    })  # fmt: skip
    add_report(config)
    return config
