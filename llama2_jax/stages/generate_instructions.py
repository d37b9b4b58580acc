"""Instructions that a model writes (Self-Instruct, Wang et al. 2022; Stanford Alpaca): from a few seed tasks, many.

Each call shows a teacher some of the seed tasks as the beginning of a list, which it continues. What it writes is read
task by task; tasks that are of no use, or too much like a seed task or one before them, are left out. The teacher is a
model of the experiment (the input `policy`), or what a function by its dotted path asks, such as a language model
behind an address (annotation/completions.py).

Writes dialogues.jsonl, to fine-tune on, and tasks.jsonl, the same with Alpaca's fields.
"""

import functools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.corpus.alike_texts import DistinctTexts
from llama2_jax.corpus.unfit_tasks import TaskLimits, unfit
from llama2_jax.data.counts import Count
from llama2_jax.inference.generate import Sample, Sampling
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.device_programs import LONGEST_PROMPTS, abstract_model, generation
from llama2_jax.pipeline.encoding import load_tokenizer, longest_prompt, read_records
from llama2_jax.pipeline.resumable import map_resumable
from llama2_jax.pipeline.runtime import Inputs, Runtime, configured_function, named_key
from llama2_jax.pipeline.sampling import Policy, load_policy, sample_resumable
from llama2_jax.pipeline.stage_files import write_jsonl
from llama2_jax.sizing.programs import DeviceWork
from llama2_jax.text.dialogue import encode_dialogue
from llama2_jax.text.task_lists import Task, read_tasks, task_list, task_messages, task_of, unfinished_list
from llama2_jax.text.tokenizer import Tokenizer

# (the round's name, prompts) -> for each prompt its `text` and whether that is `finished`.
Teacher = Callable[[str, Sequence[str]], list[dict]]


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Asks round by round until there are `tasks` of them, or `most_calls` are spent."""
    tokenizer = load_tokenizer(inputs)
    seeds = _seed_tasks(config, runtime)
    teacher, limits = _teacher(config, inputs, runtime, tokenizer), TaskLimits(**config.limits)
    distinct = DistinctTexts(config.most_alike, [seed.instruction for seed in seeds])
    kept, left_out, rounds, calls = [], Counter(), [], 0
    while len(kept) < config.tasks and calls < config.most_calls:
        count = min(config.calls_per_round, config.most_calls - calls)
        prompts = round_prompts(config, seeds, len(rounds), count, runtime.seed)
        read, malformed = _read(config, teacher(f"round {len(rounds)}", prompts))
        problems = [_problem(task, limits, distinct, tokenizer) for task in read]
        new = [task for task, problem in zip(read, problems, strict=True) if not problem]
        rounds.append({"calls": count, "read": len(read), "kept": len(new)})
        left_out.update([*filter(None, problems), *["malformed"] * malformed])
        kept, calls = kept + new, calls + count
    if len(kept) < config.tasks:
        logging.warning("%s: %d calls gave %d tasks of the %d wanted", runtime.stage, calls, len(kept), config.tasks)
    kept = kept[: config.tasks]
    write_jsonl(runtime.folder / "tasks.jsonl", [task._asdict() for task in kept])
    write_jsonl(runtime.folder / "dialogues.jsonl", [{"messages": task_messages(task)} for task in kept])
    return {
        "tasks": len(kept),
        "calls": calls,
        "with_input": sum(bool(task.input) for task in kept),
        "left_out": dict(sorted(left_out.items())),
        "rounds": rounds,
    }


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if there are too few seed tasks, no teacher or two, or a wrong setting."""
    form = task_list(config.task_list)
    TaskLimits(**config.limits)
    if bool(inputs.get("policy")) == bool(config.teacher):
        given = "both" if config.teacher else "neither"
        raise ValueError(f"the teacher is the input policy or the function teacher; there is {given}")
    if (seeds := count(config.seed_tasks)) < config.tasks_shown:
        raise ValueError(f"tasks_shown={config.tasks_shown} of at most {seeds} seed tasks: give more of them")
    if config.tasks_per_call <= config.tasks_shown:
        raise ValueError(
            f"tasks_per_call={config.tasks_per_call} with the tasks_shown={config.tasks_shown}: the list of the form "
            f"{form.name} would end before the teacher writes any"
        )


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """Generation, where the teacher is a model of the experiment."""
    if config.teacher:
        return DeviceWork((), assumptions=(f"what the teacher {config.teacher.function} needs is not counted",))
    teacher = abstract_model("teacher", model, mesh)
    return DeviceWork(generation(config, model, mesh, teacher), assumptions=(LONGEST_PROMPTS,))


def round_prompts(config: ConfigDict, seeds: Sequence[Task], number: int, count: int, seed: int) -> list[str]:
    """Returns a round's prompts, each with other seed tasks; they depend on the seed and the round alone."""
    form, draw = task_list(config.task_list), random.Random(f"{seed}/{number}")
    shown = (draw.sample(seeds, config.tasks_shown) for _ in range(count))
    return [unfinished_list(form, tasks, config.tasks_per_call) for tasks in shown]


def _seed_tasks(config: ConfigDict, runtime: Runtime) -> list[Task]:
    records = read_records(config.seed_tasks, runtime, "dialogues")
    tasks = []
    for number, record in enumerate(records, 1):
        try:
            tasks.append(task_of(record["messages"]))
        except ValueError as error:
            raise ValueError(f"{runtime.stage}: seed task {number} of {len(records)}: {error}") from error
    return tasks


def _read(config: ConfigDict, answers: Iterable[Mapping]) -> tuple[list[Task], int]:
    form = task_list(config.task_list)
    lists = [read_tasks(form, answer["text"], config.tasks_shown, answer["finished"]) for answer in answers]
    return [task for one in lists for task in one.tasks], sum(one.malformed for one in lists)


def _problem(task: Task, limits: TaskLimits, distinct: DistinctTexts, tokenizer: Tokenizer) -> str:
    """Returns why a task is left out, "" if it is kept: its instruction is then among the distinct ones."""
    problem = unfit(task, limits)
    if problem:
        return problem
    try:
        encode_dialogue(tokenizer, task_messages(task))
    except ValueError:  # it has a tag of the chat format
        return "chat format"
    return "" if distinct.add(task.instruction) else "alike"


def _teacher(config: ConfigDict, inputs: Inputs, runtime: Runtime, tokenizer: Tokenizer) -> Teacher:
    if config.teacher:
        function = configured_function(config.teacher, inputs, runtime)

        def ask(name: str, prompts: Sequence[str]) -> list[dict]:
            return map_resumable(name, len(prompts), lambda first, stop: function(prompts[first:stop]), runtime)

        return ask
    policy = load_policy(inputs["policy"], tokenizer, runtime)
    sampling = Sampling(config.temperature, config.top_p, config.max_new_tokens)
    return functools.partial(_own_model, policy, sampling, runtime)


def _own_model(policy: Policy, sampling: Sampling, runtime: Runtime, name: str, prompts: Sequence[str]) -> list[dict]:
    tokenizer, longest = policy.tokenizer, longest_prompt(sampling.max_new_tokens, runtime)
    encoded = [tokenizer.encode(prompt, bos=True) for prompt in prompts]
    fitting = [ids for ids in encoded if len(ids) <= longest]
    if not fitting:
        raise ValueError(
            f"{runtime.stage}: none of the {len(prompts)} lists of {name} has at most {longest} tokens: show fewer "
            "tasks, or give shorter ones"
        )

    if len(fitting) < len(encoded):
        logging.warning(
            "%s, %s: %d of %d lists are longer than %d tokens and not asked",
            runtime.stage, name, len(encoded) - len(fitting), len(encoded), longest,
        )  # fmt: skip

    def rows(shard: slice, samples: Sequence[Sample]) -> list[dict]:
        return [
            {"text": tokenizer.decode_after(before, sample.tokens), "finished": bool(sample.finished)}
            for before, sample in zip(fitting[shard], samples, strict=True)
        ]

    return sample_resumable(name, policy, fitting, sampling, named_key(runtime.key, name), rows, runtime)
