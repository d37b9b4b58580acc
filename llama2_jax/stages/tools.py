"""Word problems answered without tools and with them, by version (section 5.1, "Tool Use Emergence"; table 15).

Every question is asked as it is, and once more behind a description of the tools (text/tool_calls.py). The tools, and
what says whether a response is right, are functions that the config names by their dotted paths.

Writes tools.json and answers_<version>.jsonl, the latter with the ids of the answers with tools and which of these were
injected.
"""

from collections.abc import Mapping, Sequence

from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.evaluation.tool_use import tool_use
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.device_programs import LONGEST_PROMPTS, abstract_model, generation
from llama2_jax.pipeline.encoding import encode_prompts, load_tokenizer
from llama2_jax.pipeline.resumable import map_resumable
from llama2_jax.pipeline.runtime import Inputs, Runtime, configured_function, named_key
from llama2_jax.pipeline.sampling import load_policy
from llama2_jax.pipeline.stage_files import write_json, write_jsonl
from llama2_jax.pipeline.tool_questions import (
    TASKS,
    answer_with_tools,
    answer_without_tools,
    load_tools,
    read_questions,
    with_tool_prompt,
)
from llama2_jax.sizing.programs import DeviceWork


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Asks every version every set of questions, without the tools and with them.

    Returns:
      tool_use: for each version, set and prompt, with tools or without, the shares of `tool_use`.
    """
    tokenizer = load_tokenizer(inputs)
    right, tools = configured_function(config.right, inputs, runtime), load_tools(config, inputs, runtime)
    asked = {}
    for name, questions in read_questions(config, runtime).items():
        # A question that leaves no room behind the tools is asked in neither way.
        described = [{**with_tool_prompt(config, one), "question": one} for one in questions]
        kept, prompts = encode_prompts(described, config.max_new_tokens, tokenizer, runtime)
        plain = [record["question"] for record in kept]
        asked[name, False] = encode_prompts(plain, config.max_new_tokens, tokenizer, runtime)
        asked[name, True] = plain, prompts
    jobs = [
        (version, folder, *one)
        for version, folder in zip(config.versions, inputs["models"], strict=True)
        for one in asked
    ]

    def answer(first: int, _: int) -> list[dict]:
        version, folder, name, with_tools = jobs[first]
        questions, prompts = asked[name, with_tools]
        policy, key = load_policy(folder, tokenizer, runtime), named_key(runtime.key, name)
        if with_tools:
            answers = answer_with_tools(config, policy, prompts, key, tools)
        else:
            answers = answer_without_tools(config, policy, prompts, key)
        rows = _scored(right, [{**one, **said} for one, said in zip(questions, answers, strict=True)])
        return [{"version": version, "set": name, "with_tools": with_tools, "rows": rows}]

    answered = map_resumable("answers", len(jobs), answer, runtime, size=1)
    results = [
        {"version": job["version"], "set": job["set"], "with_tools": job["with_tools"], **tool_use(job["rows"])}
        for job in answered
    ]
    write_json(runtime.folder / "tools.json", {"tool_use": results})
    for version in config.versions:
        write_jsonl(runtime.folder / f"answers_{version}.jsonl", [
            {"set": job["set"], "with_tools": job["with_tools"], **row}
            for job in answered if job["version"] == version for row in job["rows"]
        ])  # fmt: skip
    return {"tool_use": results}


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if there is nothing to ask, a task is unknown, or there is no tool."""
    del inputs, count
    if not (config.questions or config.benchmark_tasks):
        raise ValueError("there is nothing to ask: give sources of questions, or benchmark_tasks")
    if unknown := [task for task in config.benchmark_tasks if task not in TASKS]:
        raise ValueError(f"benchmark_tasks={tuple(config.benchmark_tasks)}: no task {unknown}; choose of {list(TASKS)}")
    if not config.tools:
        raise ValueError("tools is empty: wanted a tool by its name, with its description and function")


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """Generation, by one version after the other."""
    programs = generation(config, model, mesh, abstract_model("version", model, mesh))
    return DeviceWork(programs, assumptions=(LONGEST_PROMPTS, "what is read again after each call is not counted"))


def _scored(right, rows: Sequence[dict]) -> list[dict]:
    """Returns the rows, each with whether its response is `right`, and the result of its last call."""
    last = [{**row, "response": row["calls"][-1]["result"] if row["calls"] else ""} for row in rows]
    return [
        {**row, "right": bool(one), "right_call": bool(call)}
        for row, one, call in zip(rows, right(rows), right(last), strict=True)
    ]
