"""The best answers of the last round against those of all rounds, as V4's fine-tuning (section 3.2.3).

Up to V3 the paper fine-tuned on the answers of the last round alone, and "RLHF V3 struggled more than previous versions
to compose rhyming lines in poems": what earlier rounds had learnt was lost, and pooling the best answers of all rounds
brought it back. A finished run of rlhf_v4 or rlhf_v5, config.source_run, gives its models up to V3 and what it sampled
from V3. Here V4 is trained twice from the same start with the same settings, on both bags, and both are evaluated side
by side, by category too. The bag of all rounds is larger and trains for more steps; for as many on the last round's:
--config.rlhf_v4_last_round.finetune.epochs=4.

Reaches (tiny): both versions of V4 on the report's page; their difference has not been measured yet.
Costs (tiny): 5 minutes of one CPU core, after the run of rlhf_v5.
Run: python -m llama2_jax.main --config=experiments/bag_ablation.py[:<scale>[,<data>]] --config.source_run=<workdir>

In a round it is a field: --config.rlhf_v4_rejection_sampling.bag=last_round, or all_rounds from V2 on.
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.choice import sources_of
from experiments.parts.ending import with_evaluation
from experiments.parts.rounds import GENERAL_REWARD, KINDS, add_finetuning, add_version
from experiments.parts.source_run import add_model, add_records, keep_settings_alone

NEWEST = "rlhf_v3_rejection_sampling"  # which both bags' V4 is compared with
ANSWERS = "rlhf_v4_rejection_sampling"
DIALOGUES = "rlhf_v3_ghost_attention"


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = rlhf_v1.start(argument)
    sources = sources_of(config)
    # Where there are annotators' models and a general reward model, the evaluation asks them.
    judges = {*sources.annotator_inputs.values(), GENERAL_REWARD}.intersection(config.stages)
    keep_settings_alone(config, "bag_ablation")
    reward_models = {kind: f"rlhf_v4_{kind}_reward" for kind in KINDS}
    for name in dict.fromkeys((sources.start_after_sampling, "sft", *sorted(judges), NEWEST, *reward_models.values())):
        add_model(config, name)
    add_records(config, DIALOGUES, "ghost_attention")
    add_records(config, ANSWERS, "rejection_sampling")
    add_version(config, "sft", "sft")
    add_version(config, "rlhf_v3", NEWEST)
    # samples.jsonl has the best answers of the last round, bag.jsonl those of all.
    add_fourth(config, "rlhf_v4_last_round", samples=(ANSWERS,))
    add_fourth(config, "rlhf_v4_all_rounds", bags=(ANSWERS,))
    return with_evaluation(config, reward_models=reward_models)


def add_fourth(config: ConfigDict, name: str, **answers: tuple[str, ...]) -> None:
    """Adds V4 fine-tuned on these answers and on the Ghost Attention dialogues, as the round does it."""
    add_finetuning(config, name, inputs={"dialogues": (DIALOGUES,), **answers})
    add_version(config, name, name)
