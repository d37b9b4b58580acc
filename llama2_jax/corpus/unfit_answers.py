"""Which answers of a teacher are not worth learning (GPT4All's curation): refusals, very short or malformed ones."""

import re
from collections.abc import Callable, Mapping, Sequence

# What a dialogue that went on by itself, or a template, leaves in an answer.
_SPEAKER = re.compile(r"^\s*(?:#{1,4}\s*)?(?:human|user|assistant|instruction|response|input)\s*:", re.I | re.M)


def unfit_answer(prompt: str, answer: str, fewest_words: int) -> str:
    """Returns "short" or "malformed" for an answer that is so, "" for others.

    Malformed is one that says the prompt again or plays another speaker, or whose block of code has no end.
    """
    if len(answer.split()) < fewest_words:
        return "short"
    repeats = bool(prompt.strip()) and answer.strip().startswith(prompt.strip())
    if repeats or _SPEAKER.search(answer) or answer.count("```") % 2:
        return "malformed"
    return ""


def problems(
    records: Sequence[Mapping], fewest_words: int, refuses: Callable[[Sequence[Mapping]], Sequence[bool]]
) -> list[str]:
    """Returns for each dialogue why one of its answers is not worth learning, "" where all are.

    Args:
      records: dialogues, with messages.
      fewest_words: of an answer.
      refuses: rows with `response` -> whether each is a refusal.
    """
    answers = [
        (index, record["messages"][place - 1]["content"], message["content"])
        for index, record in enumerate(records)
        for place, message in enumerate(record["messages"])
        if message["role"] == "assistant"
    ]
    found = [""] * len(records)
    refusals = refuses([{"response": answer} for _, _, answer in answers])
    for (index, prompt, answer), refusal in zip(answers, refusals, strict=True):
        found[index] = found[index] or ("refusal" if refusal else unfit_answer(prompt, answer, fewest_words))
    return found
