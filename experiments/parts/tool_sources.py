"""The tools of an experiment, what teaches a model to call them, and what is asked with them (section 5.1)."""

import dataclasses

CALCULATOR = "llama2_jax.inference.calculator.calculator"


@dataclasses.dataclass(frozen=True)
class ToolSources:
    """What the experiment tools.py reads.

    Attributes:
      tools: by name the `description` for the prompt, and the `function` with its `arguments`.
      demonstrations: dialogues with calls to fine-tune on; none if the model is to call tools as it is.
      questions: prompts with an `answer`, by kind.
      tasks: benchmarks of word problems that are asked too, of files under data.root.
      right: whether a response has a question's answer: a function's dotted path with its arguments.
    """

    tools: dict[str, dict]
    demonstrations: dict[str, dict]
    questions: dict[str, dict]
    tasks: tuple[str, ...]
    right: dict


def real_tools() -> ToolSources:
    """Returns the paper's, as far as the files go: table 15 has ASDiv and MAWPS besides SVAMP."""
    description = "evaluates an arithmetic expression, such as (12 + 3) / 5"
    return ToolSources(
        tools={"CALCULATOR": {"description": description, "function": CALCULATOR, "arguments": {}}},
        demonstrations={},
        questions={},
        tasks=("svamp",),
        right={"function": "llama2_jax.evaluation.final_number.right_numbers", "arguments": {}},
    )


def miniature_tools() -> ToolSources:
    """Returns the miniature's: numbers are words there, and the small vocabulary has few words for a description."""
    description = "six plus seven"
    return ToolSources(
        tools={"CALCULATOR": {"description": description, "function": CALCULATOR, "arguments": {}}},
        demonstrations={
            "sums": _sums("demonstrations", "dialogues", count=600, tools={"CALCULATOR": description}),
        },
        questions={
            kind: _sums("questions", "prompts", kind=kind, count=200) for kind in ("unseen", "larger", "three_numbers")
        },
        tasks=(),
        right={"function": "llama2_jax.miniature.tool_sums.right_sums", "arguments": {}},
    )


def _sums(function: str, format: str, **arguments) -> dict:
    return {"function": f"llama2_jax.miniature.tool_sums.{function}", "format": format, "arguments": arguments}
