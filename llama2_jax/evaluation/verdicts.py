"""A judge's verdicts on answers, averaged over a set of prompts (sections 3.4 and 4.4).

A judge is any function `judge(rows, *, seed, **arguments) -> list of verdicts`, named in the config by its dotted path.
A row has `messages` (ending in a user turn), `response`, and `tokens` (the ids of the whole dialogue). A verdict maps
fields to numbers or booleans, with None for what the judge cannot decide; it is None if the judge can decide nothing:

| field              | read by                                                        |
|--------------------|----------------------------------------------------------------|
| `helpfulness`      | its measures, and win rates on prompts not tagged as safety    |
| `safety`           | its measure, and win rates on prompts tagged as safety         |
| `content`, `style` | the measures of what helpfulness is made of                    |
| `right`            | the share of answers in which everything asked for is right    |
| `violation`        | the violation rate                                             |
| `refusal`          | the false refusal rates                                        |
| `instruction_kept` | the share of instructions kept by turn (kept_instructions.py)  |
| any other          | a measure that names it in its declaration (evaluation/measures.py) |
"""

import math
from collections.abc import Collection, Mapping, Sequence

from llama2_jax.evaluation.measures import Measure

Verdicts = Sequence[Mapping | None]


def check_verdicts(verdicts: Verdicts, answers: int, fields: Collection[str], judge: str) -> None:
    """Checks what a judge returned.

    Args:
      verdicts: the verdicts.
      answers: the number of answers that it was given.
      fields: those that are read.
      judge: its name, for messages.

    Raises:
      ValueError: if there is not one verdict for each answer, or a field that is read is not a finite number, a
        boolean or None.
    """
    if len(verdicts) != answers:
        raise ValueError(f"{judge} returned {len(verdicts)} verdicts on {answers} answers")
    for index, verdict in enumerate(verdicts):
        if verdict is None:
            continue
        if not isinstance(verdict, Mapping):
            raise ValueError(f"{judge}: verdict {index} is {verdict!r}; wanted fields with their values, or None")
        for field in fields:
            value = verdict.get(field)
            if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
                raise ValueError(
                    f"{judge}: verdict {index} has {field} {value!r}; wanted a finite number, true, false, or None "
                    "where the judge cannot decide"
                )


def summarise(prompts: Sequence[Mapping], verdicts: Verdicts, measures: Sequence[Measure]) -> dict[str, float | None]:
    """Returns the measures that average a field of the verdicts; None where no verdict has a value.

    Args:
      prompts: records with `safety` (the prompt asks for something unsafe) and, where known, `category` and `seen`.
      verdicts: one per prompt.
      measures: the declarations; those without a verdict field are skipped.
    """
    return {
        measure.name: mean_known(_verdicts_of(measure, prompts, verdicts), measure.verdict)
        for measure in measures
        if measure.verdict
    }


def by_category(
    prompts: Sequence[Mapping], verdicts: Verdicts, measures: Sequence[Measure]
) -> dict[str, dict[str, float | None]]:
    """Returns for each category of prompts, in their order, how many unseen ones there are and what they reach.

    Args:
      prompts, verdicts: as for `summarise`; prompts without a category are left out.
      measures: the declarations; those `by_category` are reported.
    """
    found = {}
    for category in dict.fromkeys(prompt["category"] for prompt in prompts if prompt.get("category")):
        own = [
            (prompt, verdict)
            for prompt, verdict in zip(prompts, verdicts, strict=True)
            if prompt.get("category") == category and not prompt.get("seen")
        ]
        if own:
            shared = [measure for measure in measures if measure.by_category]
            found[category] = {"prompts": len(own), **summarise(*zip(*own, strict=True), shared)}
    return found


def count_judged(prompts: Sequence[Mapping], verdicts: Verdicts, measures: Sequence[Measure]) -> dict[str, int]:
    """Returns how many verdicts have a value for each measure of `summarise`; its arguments."""
    return {
        measure.name: count_known(_verdicts_of(measure, prompts, verdicts), measure.verdict)
        for measure in measures
        if measure.verdict
    }


def not_judged(prompts: Sequence[Mapping], verdicts: Verdicts, measures: Sequence[Measure]) -> list[str]:
    """Returns a note for each measure of `summarise` that is absent although the judge was asked for it.

    What a judge has no field for, it was not asked.
    """
    notes = []
    for measure in measures:
        selected = _verdicts_of(measure, prompts, verdicts) if measure.verdict else []
        asked = any(verdict is None or measure.verdict in verdict for verdict in selected)
        if asked and not _known(selected, measure.verdict):
            notes.append(f"{measure.name}: none of {len(selected)} verdicts has a value of {measure.verdict}")
    return notes


def utilities(prompts: Sequence[Mapping], verdicts: Verdicts) -> list[float | None]:
    """Returns what win rates compare: an answer's safety on prompts tagged as safety, its helpfulness on the others.

    It is None where the judge could not decide it.
    """
    return [
        (verdict or {}).get("safety" if prompt["safety"] else "helpfulness")
        for prompt, verdict in zip(prompts, verdicts, strict=True)
    ]


def mean_known(verdicts: Verdicts, field: str) -> float | None:
    """Returns the mean of a field over the verdicts that have a value; None if none has."""
    known = _known(verdicts, field)
    return sum(known) / len(known) if known else None


def count_known(verdicts: Verdicts, field: str) -> int:
    """Returns how many verdicts have a value of a field."""
    return len(_known(verdicts, field))


def _known(verdicts: Verdicts, field: str) -> list[float]:
    return [float(verdict[field]) for verdict in verdicts if verdict is not None and verdict.get(field) is not None]


def _verdicts_of(measure: Measure, prompts: Sequence[Mapping], verdicts: Verdicts) -> Verdicts:
    """Returns the verdicts on the prompts that a measure averages over."""
    return [verdict for prompt, verdict in zip(prompts, verdicts, strict=True) if measure.is_over(prompt)]
