"""A smaller model fine-tuned on the best samples of the largest one, round by round, then PPO (section 3.2.3).

"We perform rejection sampling only with our largest 70B Llama 2-Chat. All smaller models are fine-tuned on rejection
sampled data from the larger model." A finished run of rlhf_v5 with the larger model, config.teacher, gives its
tokenizer, its comparisons (for the reward models), its best samples and its dialogues; nothing is sampled or annotated
here before PPO.

Reaches (tiny, one seed): with half the teacher's layers true helpfulness 0.63 from 0.39, where the teacher reaches 0.64
from 0.42; violations fall from 0.68 to 0.11, and PPO raises them to 0.20; more in docs/earlier_results.md.
Costs (tiny): 16 minutes on one CPU core, after the teacher's run.
Run: python -m llama2_jax.main --config=experiments/distillation.py[:<scale>[,<data>]] --config.teacher=<its workdir>

The student without the teacher's samples is its own version sft, which win rates are over. To see what the larger
model's samples bring it beyond its own, let it sample itself, with the same tokenizer:

    python -m llama2_jax.main --config=experiments/rlhf_v5.py --config.model.layers=2 --workdir=<its own> \\
        --config.given.tokenizer=<teacher>/tokenizer

A student of half the width instead of half the layers: --config.model.layers=4 --config.model.dim=64
--config.model.heads=2 --config.model.kv_heads=1 --config.model.ffn_hidden=192
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.choice import Choice
from experiments.parts.ending import with_evaluation
from experiments.parts.ppo import add_ppo
from experiments.parts.rounds import KINDS, add_finetuning, add_reward_models, add_version
from experiments.parts.scales import by_scale
from experiments.parts.stages import add_stage

ROUNDS = range(1, 6)


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    return with_evaluation(training(argument))


def training(argument: str) -> ConfigDict:
    """All but the evaluation and the report."""
    config = rlhf_v1.start(argument)
    config.experiment = "distillation"
    teacher = by_scale(config.scale, {"tiny": "tiny", "small": "1b", "1b": "7b"}, paper="70b")
    config.teacher = f"runs/rlhf_v5-{Choice(teacher, config.data.name).variant}"  # the workdir of its run
    config.model.layers = by_scale(config.scale, {"tiny": 2}, paper=config.model.layers)  # half the teacher's
    config.tokenizer = {
        "run": "llama2_jax.stages.imported",
        "role": "tokenizer",
        "folder": config.get_ref("teacher") + "/tokenizer",
    }
    models = config.stages[1:]
    comparisons = tuple(add_records(config, "annotation", f"rlhf_v{number}_annotation") for number in ROUNDS)
    bags = tuple(add_records(config, "rejection_sampling", f"rlhf_v{number}_rejection_sampling") for number in ROUNDS)
    ghost_attention = add_records(config, "ghost_attention", "rlhf_v3_ghost_attention")
    distilled = add_records(config, "context_distillation", "rlhf_v5_context_distillation")
    # Before anything is trained, so that what is missing is missed at once.
    config.stages = ("tokenizer", *comparisons, *bags, ghost_attention, distilled, *models)
    # What the teacher was fine-tuned on in each round.
    dialogues = {4: (ghost_attention,), 5: (ghost_attention, distilled)}
    for number, bag in zip(ROUNDS, bags, strict=True):
        add_student(config, number, bag, dialogues.get(number, ()))
    add_reward_models(config, 5, newest="rlhf_v4_distillation")
    for kind in KINDS:
        config[f"rlhf_v5_{kind}_reward"].inputs.annotations = comparisons
    add_ppo(config, "rlhf_v5_ppo", policy="rlhf_v5_distillation")
    add_version(config, "rlhf_v5", "rlhf_v5_ppo")
    return config


def add_records(config: ConfigDict, role: str, stage: str) -> str:
    """Adds the import of what a stage of the teacher's run wrote; returns its name."""
    name = f"teacher_{stage}"
    add_stage(config, name, {
        "run": "llama2_jax.stages.imported_records",
        "role": "imported",
        "inputs": {"tokenizer": "tokenizer"},
        "folder": config.get_ref("teacher") + f"/{stage}",
        "records_of": role,
    })  # fmt: skip
    return name


def add_student(config: ConfigDict, number: int, bag: str, dialogues: tuple[str, ...]) -> None:
    """Adds the fine-tuning on the teacher's bag of a round, and dialogues, from where the teacher started too."""
    name = f"rlhf_v{number}_distillation"
    add_finetuning(config, name, inputs={"bags": (bag,), "dialogues": dialogues}, number=number)
    # The last one is what PPO starts from.
    add_version(config, f"rlhf_v{number}" if number < 5 else name, name)
