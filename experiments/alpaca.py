"""Stanford Alpaca on the machinery of Self-Instruct: a teacher writes tasks, a base model is fine-tuned on them.

A finished run of rlhf_v5, config.source_run, gives its base model and its tokenizer. From 175 seed tasks a teacher
writes many (stages/generate_instructions.py): in `tiny` and `small` the base model itself, which continues lists of
questions with answers (Self-Instruct), from `1b` on a language model behind an address, as text-davinci-003 was
(config.instructions.teacher.arguments.chat.base_url and .model). The base model is fine-tuned on them in Alpaca's
format, beside it on the seed tasks alone, and on as many demonstrations by people.

Reaches (tiny, seed 13): true helpfulness 0.43 with 2,000 tasks that the base model wrote, of 2,816 calls, 0.39 with as
many demonstrations by people and 0.09 with the 175 seed tasks alone; 0.48, 0.42 and 0.07 of answers are wholly right.
Unsafe requests are complied with (violations of 0.99, 0.98 and 0.59): no task teaches to decline.
Costs (tiny): 6 minutes on 2 CPU cores that other work kept busy, after the run of rlhf_v5.
Run: python -m llama2_jax.main --config=experiments/alpaca.py[:<scale>[,<data>]] --config.source_run=<workdir>
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.choice import sources_of
from experiments.parts.ending import add_judged_answers, add_report
from experiments.parts.rounds import add_version
from experiments.parts.scales import by_scale
from experiments.parts.source_run import keep_base_model
from experiments.parts.stages import add_stage
from experiments.parts.training import finetuning_schedule

TASKS = 52_000
# Scales whose teacher is the base model itself.
SELF_INSTRUCTED = ("tiny", "small")


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = rlhf_v1.start(argument)
    scale, sources = config.scale, sources_of(config)
    keep_base_model(config, "alpaca", "alpaca")
    # Batch 128; 2e-5, and 1e-5 at 13B; no weight decay.
    config.finetuning.batch_size = by_scale(scale, {"tiny": 3}, paper=128)
    config.finetuning.learning_rate = by_scale(scale, {"tiny": 1e-3, "small": 1e-4, "1b": 4e-5, "7b": 2e-5}, paper=1e-5)
    config.optimizer.weight_decay = by_scale(scale, {"tiny": 0.1, "small": 0.1}, paper=0.0)
    add_instructions(config)
    seeds, people = sources.tasks.seeds, sources.tasks.demonstrations(config.instructions.get_ref("tasks"))
    add_finetuning(config, "seed_tasks", seeds)
    add_finetuning(config, "alpaca", seeds, dialogues=("instructions",))
    add_finetuning(config, "demonstrations", {**seeds, **people})
    add_judged_answers(config, baseline="seed_tasks", prompts=sources.tasks.prompts)  # of one turn, as the format
    add_report(config)
    return config


def add_instructions(config: ConfigDict) -> None:
    """Adds the tasks that a teacher writes: three seeds are shown, twenty asked for, ROUGE-L of at most 0.7."""
    scale = config.scale
    own = scale in SELF_INSTRUCTED
    chat = {"base_url": "", "model": "", "temperature": 1.0, "max_tokens": 3072, "budget": 100_000}
    add_stage(config, "instructions", {
        "run": "llama2_jax.stages.generate_instructions",
        "role": "instructions",
        "inputs": {"tokenizer": "chat_tokenizer", **({"policy": "pretrain"} if own else {})},
        "seed_tasks": sources_of(config).tasks.seeds,
        "task_list": "questions" if own else "alpaca",
        "tasks_shown": 3,
        "tasks_per_call": 20,
        "tasks": by_scale(scale, {"tiny": 2000, "small": 10_000}, paper=TASKS),
        "calls_per_round": by_scale(scale, {"tiny": 256}, paper=1000),
        "most_calls": by_scale(scale, {"tiny": 4096}, paper=2 * TASKS),
        # The miniature asks in few forms: two questions that differ by a land's name are alike to 0.83.
        "most_alike": by_scale(scale, {"tiny": 0.95}, paper=0.7),
        "limits": {"fewest_words": 4, "most_words": 150},
        "temperature": 1.0,
        "top_p": 1.0,
        "max_new_tokens": by_scale(scale, {"tiny": 320, "small": 1024}, paper=3072),
        "teacher": {} if own else {
            "function": "llama2_jax.annotation.completions.complete", "arguments": {"chat": chat}
        },
    })  # fmt: skip


def add_finetuning(config: ConfigDict, name: str, sources: dict, *, dialogues: tuple[str, ...] = ()) -> None:
    """Adds a version, fine-tuned from the base model for three epochs (13B: five), 3 % warm-up, cosine to 0."""
    schedule = finetuning_schedule(config, epochs=by_scale(config.scale, {"13b": 5}, paper=3))
    add_stage(config, name, {
        "run": "llama2_jax.stages.finetune",
        "role": "finetuning",
        "inputs": {"tokenizer": "chat_tokenizer", "start": "pretrain", "dialogues": dialogues},
        "sources": sources,
        "held_out": {},
        "finetune": {
            **schedule,
            "length": by_scale(config.scale, {"tiny": schedule["length"]}, paper=512),
            "too_long": by_scale(config.scale, {}, paper="drop"),
            "warmup_fraction": 0.03,
            "final_learning_rate_fraction": 0.0,
        },
    })  # fmt: skip
    add_version(config, name, name)
