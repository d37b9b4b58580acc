"""How like a teacher's answers others are, and whether what they say is true (Gudibande et al. 2023).

By that paper imitation closes the gap in style and not in facts. So style is measured beside the teacher's own answers
to the same prompts, and what is right beside the questions' answers.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from llama2_jax.evaluation.answer_overlap import best_f1, normalized
from llama2_jax.evaluation.measures import Chart, Measure

# A sentence that begins so many of the teacher's answers is one of its phrases.
PHRASE_SHARE = 0.02
# An answer is as long as the teacher's if neither has so many times the words of the other.
AS_LONG = 1.5

_SENTENCE = re.compile(r"[^.!?\n]*[.!?\n]?")
_LIST = re.compile(r"(?:^|\n)\s*(?:[-*•]|\d+[.)])\s|(?:[^,.]+,){2,}[^,.]* and ")

LIKE_THE_TEACHER = Chart(
    "imitation",
    "Imitation",
    "How like the teacher's the answers are in style, and how many are right.",
    source="Gudibande et al. 2023",
)
MEASURES = (
    Measure("right", "right", "higher", verdict="right", headline="of questions with one answer", in_words=True,
            by_category=True, chart=LIKE_THE_TEACHER, color="violation"),
    Measure("overlap", "overlap of words", "higher", verdict="overlap", headline="F1 with the teacher's answer",
            in_words=True, by_category=True, chart=LIKE_THE_TEACHER, color="helpfulness"),
    Measure("tone", "tone", "higher", verdict="tone", headline="begin as the teacher's answers do", in_words=True,
            chart=LIKE_THE_TEACHER, color="safety"),
    Measure("lists", "lists", "higher", verdict="list", headline="a list where the teacher has one, else none",
            chart=LIKE_THE_TEACHER, color="policy"),
    Measure("as_long", "as long", "higher", verdict="as_long", chart=LIKE_THE_TEACHER, color="muted"),
    Measure("answer_tokens", "tokens per answer", share=False),
)  # fmt: skip


def judge(rows: Sequence[Mapping]) -> list[dict]:
    """Returns a verdict on each response.

    Args:
      rows: with `response`, the teacher's answer `reference`, and `answer`, a list of right answers, if there is one.

    Returns:
      `overlap`: F1 of the words with the teacher's. `tone`: whether it begins with a sentence that begins many of the
      teacher's answers. `list`: whether it has a list just where the teacher's has. `as_long`. `right`: whether it
      says a right answer, None where there is none. Win rates compare `helpfulness`, the overlap.
    """
    phrases = _phrases([row["reference"] for row in rows])
    return [_verdict(row["response"], row["reference"], row.get("answer"), phrases) for row in rows]


def _verdict(response: str, reference: str, answers: Sequence[str] | None, phrases: frozenset[str]) -> dict:
    overlap = best_f1(response, [reference])
    lengths = len(response.split()), len(reference.split())
    named = f" {normalized(response)} "
    return {
        "helpfulness": overlap,
        "overlap": overlap,
        "tone": _beginning(response) in phrases,
        "list": _has_list(response) == _has_list(reference),
        "as_long": max(lengths) <= AS_LONG * min(lengths),
        "right": None if not answers else any(f" {normalized(one)} " in named for one in answers),
    }


def _phrases(references: Sequence[str]) -> frozenset[str]:
    beginnings = Counter(map(_beginning, references))
    fewest = max(2, PHRASE_SHARE * len(references))
    return frozenset(one for one, count in beginnings.items() if one and count >= fewest)


def _beginning(text: str) -> str:
    return normalized(_SENTENCE.match(text.strip())[0])


def _has_list(text: str) -> bool:
    return _LIST.search(text) is not None
