"""What teaches a sense of time, and asks for it (section 5.1, "Llama 2-Chat Temporal Perception")."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class DateSources:
    """What the experiment dates.py reads.

    Attributes:
      knowledge: dialogues on what happened when, and ordinary ones, without the date of the question.
      dated_examples: dialogues posed at a date that decides the answer, the paper's 1,000.
      questions: prompts with `query_year` and `event_year` or both dates (llama2_jax/data/dated.py), by set.
      right: what says whether an answer is right: a function's dotted path with its arguments.
    """

    knowledge: dict[str, dict]
    dated_examples: dict[str, dict]
    questions: dict[str, dict]
    right: dict


def real_dates() -> DateSources:
    """Returns files of yours: the paper's examples are not published. Pretraining has the knowledge."""
    return DateSources(
        knowledge={},
        dated_examples={"dated": {"path": "dates/train/*.jsonl", "format": "openai_chat"}},
        questions={"held_out": {"path": "dates/test/*.jsonl", "format": "prompts"}},
        right={"function": "llama2_jax.evaluation.dates.answers_in_time", "arguments": {}},
    )


def miniature_dates() -> DateSources:
    """Returns the miniature's: events of its lands, of a third of which no dated question is trained on."""
    return DateSources(
        knowledge={
            "knowledge": _source("dates.knowledge", "dialogues", count=2000),
            # So that nothing else is forgotten: in each epoch others.
            "vendor": {
                **_source("demonstrations.demonstrations", "dialogues", count=4000, purpose="dates"),
                "weight": 0.25,
            },
        },
        dated_examples={"dated": _source("dates.dated_examples", "dialogues", count=1000, reasoned=True)},
        questions={
            "held_out": _questions("held_out", count=600),
            "seen": _questions("seen", count=600),
            # Whether the years are known at all.
            "undated_held_out": _questions("held_out", count=200, dated=False),
            "undated_seen": _questions("seen", count=200, dated=False),
        },
        right={"function": "llama2_jax.miniature.dates.answers_in_time", "arguments": {}},
    )


def _questions(split: str, **arguments) -> dict:
    return _source("dates.questions", "prompts", split=split, **arguments)


def _source(function: str, format: str, **arguments) -> dict:
    return {"function": f"llama2_jax.miniature.{function}", "format": format, "arguments": arguments}
