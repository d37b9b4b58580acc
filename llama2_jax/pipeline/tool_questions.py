"""The questions of the stage tools, and the answers to them without tools and with them."""

from collections.abc import Callable, Mapping, Sequence

import jax
from etils import epath
from ml_collections import ConfigDict

from llama2_jax.evaluation import benchmark_files
from llama2_jax.inference.generate import Sampling
from llama2_jax.inference.tools import Tool, ToolAnswer, ToolLimits, generate_with_tools
from llama2_jax.pipeline.encoding import read_sources, unweighted
from llama2_jax.pipeline.runtime import Inputs, Runtime, configured_function
from llama2_jax.pipeline.sampling import Policy, sample_answers
from llama2_jax.text.tool_calls import tool_prompt

# Word problems with a number for an answer.
TASKS: Mapping[str, Callable[[str], list[dict]]] = {"svamp": benchmark_files.svamp}


def read_questions(config: ConfigDict, runtime: Runtime) -> dict[str, list[dict]]:
    """Returns the questions by set, each with its `messages` and its `answer`.

    Raises:
      ValueError: if a task is not one of TASKS, a file is missing, or a question has no answer.
    """
    sets = read_sources(unweighted(config.questions, runtime), runtime, "prompts")
    for task in config.benchmark_tasks:
        if task not in TASKS:
            raise ValueError(f"{runtime.stage}: no task {task!r}; there are {', '.join(TASKS)}")
        documents = TASKS[task](str(epath.Path(runtime.data_root) / config.benchmarks))
        sets[task] = [
            {"messages": [{"role": "user", "content": document["question"]}], "answer": document["answer"]}
            for document in documents[: config.questions_per_task or None]
        ]
    for name, questions in sets.items():
        for index, question in enumerate(questions):
            if "answer" not in question:
                raise ValueError(f"{runtime.stage}: question {index} of {name} has no `answer`: {sorted(question)}")
    return sets


def load_tools(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict[str, Tool]:
    """Returns the functions of the tools by name."""
    return {name: configured_function(part, inputs, runtime) for name, part in config.tools.items()}


def with_tool_prompt(config: ConfigDict, question: Mapping) -> dict:
    """Returns a question whose last message says what the tools are."""
    *before, last = question["messages"]
    described = {name: part.description for name, part in config.tools.items()}
    return {**question, "messages": [*before, {**last, "content": tool_prompt(described, last["content"])}]}


def answer_without_tools(
    config: ConfigDict, policy: Policy, prompts: Sequence[Sequence[int]], key: jax.Array
) -> list[dict]:
    """Returns for each prompt the `response`, whether it is `finished`, and no `calls`."""
    samples = sample_answers(policy, prompts, _sampling(config), key)
    return [
        {"response": policy.tokenizer.decode(one.tokens).strip(), "finished": bool(one.finished), "calls": []}
        for one in samples
    ]


def answer_with_tools(
    config: ConfigDict, policy: Policy, prompts: Sequence[Sequence[int]], key: jax.Array, tools: Mapping[str, Tool]
) -> list[dict]:
    """Returns for each prompt the `response`, whether it is `finished`, and its `calls`."""
    answers = generate_with_tools(
        policy.model, policy.params, prompts, _sampling(config), key, policy.tokenizer, tools,
        ToolLimits(config.most_calls, config.result_characters),
    )  # fmt: skip
    return [_row(answer) for answer in answers]


def _row(answer: ToolAnswer) -> dict:
    calls = [{"text": call.written.text, "result": call.result, "problem": call.problem} for call in answer.calls]
    return {
        "response": answer.text,
        "finished": answer.finished,
        "calls": calls,
        "tokens": answer.tokens.tolist(),
        "injected": answer.injected.astype(int).tolist(),
    }


def _sampling(config: ConfigDict) -> Sampling:
    return Sampling(config.temperature, config.top_p, config.max_new_tokens)
