"""What changed from the first to the last version, in sentences."""

from collections.abc import Mapping, Sequence

from llama2_jax.evaluation.measures import Measure
from llama2_jax.report.formatting import number, percent


def summary(versions: Sequence[Mapping], labels: Sequence[str], measures: Sequence[Measure]) -> list[str]:
    """Returns a sentence on the unseen prompts and one on the seen ones; none on what was not measured.

    Args:
      versions: rows of report.json.
      labels: their names.
      measures: the declarations; a sentence names those `in_words`.
    """
    if len(versions) < 2:
        return []
    first, last = versions[0], versions[-1]
    sentences = []
    for seen, prompts in ((False, "unseen"), (True, "seen")):
        changes = [
            _change(measure, first[measure.name], last[measure.name])
            for measure in measures
            if measure.in_words and measure.seen == seen and None not in (first[measure.name], last[measure.name])
        ]
        if changes:
            sentences.append(f"From {labels[0]} to {labels[-1]}, on {prompts} prompts: {', '.join(changes)}.")
    return sentences


def _change(measure: Measure, before: float, after: float) -> str:
    old, new = (percent(value, 1) if measure.share else number(value) for value in (before, after))
    if old == new:
        return f"{measure.title} stayed at {new}"
    return f"{measure.title} {'rose' if after > before else 'fell'} from {old} to {new}"
