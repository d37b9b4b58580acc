"""A teacher's answers to imitate (experiments/imitation.py), in the miniature and from files."""

import dataclasses

SourceDict = dict[str, dict]


@dataclasses.dataclass(frozen=True)
class ImitationSources:
    """What the experiment imitation.py reads.

    Attributes:
      versions: by version the teacher's answers that it is fine-tuned on; the first is the least.
      asked: prompts with the teacher's `reference`, and with `answer` where there is one.
    """

    versions: dict[str, SourceDict]
    asked: SourceDict


def miniature_imitation() -> ImitationSources:
    """Returns the miniature's: all kinds of questions, and sums, of which few are known."""
    return ImitationSources(
        versions={
            **{f"broad_{count}": {"teacher": _answers(count)} for count in (100, 400, 1600, 6400)},
            **{f"targeted_{count}": {"teacher": _answers(count, kinds=("arithmetic",))} for count in (400, 1600)},
        },
        asked={"asked": _miniature("imitation.asked", "prompts", count=600)},
    )


def real_imitation() -> ImitationSources:
    """Returns GPT-4's answers (GPTeacher): role play and code, and role play alone, which the held-out ones are of.

    Its answers to questions for facts are not among them, so facts are left to the benchmarks (benchmarks.py).
    """
    role_play, code = (f"sft/gpteacher/{name}.json.gz" for name in ("roleplay", "codegen"))
    return ImitationSources(
        versions={
            **{f"broad_{percent}_percent": _teacher((role_play, code), percent / 100) for percent in (5, 20, 90)},
            "targeted": _teacher((role_play,), 0.9),
        },
        asked={
            "held_out": {
                "path": role_play, "format": "prompts", "part": (0.9, 1.0), "limit": 200,
                "columns": {"user": "instruction", "reference": "response"}, "defaults": {"category": "role_play"},
            },
        },
    )  # fmt: skip


def _teacher(paths: tuple[str, ...], part: float) -> SourceDict:
    return {
        f"teacher_{number}": {
            "path": path, "format": "dialogues", "part": (0.0, part), "limit": 1_000_000_000,
            "columns": {"user": "instruction", "context": "input", "assistant": "response"},
        }
        for number, path in enumerate(paths)
    }  # fmt: skip


def _answers(count: int, **arguments) -> dict:
    return _miniature("imitation.teacher_answers", "dialogues", count=count, **arguments)


def _miniature(function: str, format: str, **arguments) -> dict:
    return {"function": f"llama2_jax.miniature.{function}", "format": format, "weight": 1.0, "arguments": arguments}
