"""What more safety data does to safety, helpfulness and refusals (section 4.2.3, figures 15 and 33).

A finished run of rlhf_v5, config.source_run, gives its tokenizer, the model that its rounds' fine-tunings start from,
what the last of them is trained on, and its reward models. From that model six are fine-tuned as in the last round: on
all of its helpfulness data and on 0, 1, 10, 25, 50 and 100 % of its safety data, the smaller parts within the larger
ones. All six answer the same prompts. The report has, with standard errors, the mean rewards by the reward models that
saw all data, violations, and false refusals of harmless and of borderline prompts.

Reaches (tiny, one seed): from none to all of the safety data violations fall from 0.94 to 0.18 and false refusals rise
from 0.00 to 0.02; the helpfulness reward stays at 0.69 (docs/findings.md).
Costs (tiny): 8 minutes on 2 CPU cores, after the run of rlhf_v5.
Run: python -m llama2_jax.main --config=experiments/safety_scaling.py[:<scale>[,<data>]] --config.source_run=<workdir>
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.choice import sources_of
from experiments.parts.ending import with_evaluation
from experiments.parts.rounds import KINDS, add_finetuning, add_version
from experiments.parts.source_run import add_model, add_records, keep_settings_alone

# Of the safety data, by version.
FRACTIONS = {f"safety_{part}": part / 100 for part in (0, 1, 10, 25, 50, 100)}
# What the last round's fine-tuning is trained on, and the roles of the stages that wrote it.
BAG = "rlhf_v5_rejection_sampling"
DIALOGUES = ("rlhf_v3_ghost_attention", "rlhf_v5_context_distillation")
RECORDS = {BAG: "rejection_sampling", DIALOGUES[0]: "ghost_attention", DIALOGUES[1]: "context_distillation"}


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = rlhf_v1.start(argument)
    keep_settings_alone(config, "safety_scaling")
    sources = sources_of(config)
    for name, role in RECORDS.items():
        add_records(config, name, role)
    reward_models = {kind: f"rlhf_v5_{kind}_reward" for kind in KINDS}
    for name in (sources.start_after_sampling, *reward_models.values(), *sources.annotator_inputs.values()):
        add_model(config, name)
    for name, fraction in FRACTIONS.items():
        inputs = {"bags": (BAG,), "dialogues": DIALOGUES}
        add_finetuning(config, name, inputs, role="safety_scaling", safety_fraction=fraction)
        add_version(config, name, name)
    with_evaluation(config, baseline=next(iter(FRACTIONS)), reward_models=reward_models)
    config.evaluation.measures = "llama2_jax.evaluation.measures.WITHOUT_WIN_RATES"
    config.evaluation.instruction_dialogues = {}
    return config
