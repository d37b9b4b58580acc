"""A judge's verdicts on answers, averaged over a set of prompts (sections 3.4 and 4.4).

A judge is any function `judge(rows, *, seed, **arguments) -> list of verdicts`, named in the config by its dotted path.
A row has `messages` (ending in a user turn), `response`, and `tokens` (the ids of the whole dialogue). A verdict maps
fields to numbers or booleans, with None for what the judge cannot decide:

| field              | read by                                                        |
|--------------------|----------------------------------------------------------------|
| `helpfulness`      | its measures, and win rates on prompts not tagged as safety    |
| `safety`           | its measure, and win rates on prompts tagged as safety         |
| `content`, `style` | the measures of what helpfulness is made of                    |
| `violation`        | the violation rate                                             |
| `refusal`          | the false refusal rates                                        |
| `instruction_kept` | the share of instructions kept by turn                         |
| any other          | a measure that names it in its declaration (evaluation/measures.py) |
"""

from collections.abc import Mapping, Sequence

from llama2_jax.evaluation.measures import Measure


def summarise(
    prompts: Sequence[Mapping], verdicts: Sequence[Mapping], measures: Sequence[Measure]
) -> dict[str, float | None]:
    """Returns the measures that average a field of the verdicts; None where no verdict has a value.

    Args:
      prompts: records with `safety` (the prompt asks for something unsafe) and, where known, `category` and `seen`.
      verdicts: one per prompt.
      measures: the declarations; those without a verdict field are skipped.
    """
    pairs = list(zip(prompts, verdicts, strict=True))
    return {
        measure.name: mean_known([verdict for prompt, verdict in pairs if measure.is_over(prompt)], measure.verdict)
        for measure in measures
        if measure.verdict
    }


def utilities(prompts: Sequence[Mapping], verdicts: Sequence[Mapping]) -> list[float]:
    """Returns what win rates compare: an answer's safety on prompts tagged as safety, its helpfulness on the others."""
    return [
        verdict["safety"] if prompt["safety"] else verdict["helpfulness"]
        for prompt, verdict in zip(prompts, verdicts, strict=True)
    ]


def mean_known(verdicts: Sequence[Mapping], field: str) -> float | None:
    """Returns the mean of a field over the verdicts that have a value; None if none has."""
    known = [float(verdict[field]) for verdict in verdicts if verdict.get(field) is not None]
    return sum(known) / len(known) if known else None
