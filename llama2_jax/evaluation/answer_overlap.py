"""How far an answer is the one that was wanted: exact match and F1 of words, as SQuAD and QuAC count them.

Source: Rajpurkar et al. 2016, section 6.1; Choi et al. 2018, section 4.
"""

import collections
import re
import string
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(answer: str, references: Sequence[str]) -> float:
    """Returns 1.0 if the answer is one of the references but for case, punctuation, articles and spaces."""
    return float(any(normalized(answer) == normalized(reference) for reference in references))


def f1(answer: str, references: Sequence[str]) -> float:
    """Returns the largest F1 of the answer's words and a reference's.

    With several references each is left out once and the results are averaged, so that people, who are measured
    against the others, are measured alike (Choi et al. 2018). `best_f1` leaves none out.
    """
    if len(references) < 2:
        return best_f1(answer, references)
    left_out = [[*references[:index], *references[index + 1 :]] for index in range(len(references))]
    return sum(best_f1(answer, others) for others in left_out) / len(left_out)


def best_f1(answer: str, references: Sequence[str]) -> float:
    """Returns the largest F1 of the answer's words and a reference's (Rajpurkar et al. 2016)."""
    return max(_f1(answer, reference) for reference in references)


def normalized(text: str) -> str:
    """Returns a text in lower case without punctuation, articles and needless spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def _f1(answer: str, reference: str) -> float:
    words, wanted = normalized(answer).split(), normalized(reference).split()
    if not words or not wanted:
        return float(words == wanted)
    common = sum((collections.Counter(words) & collections.Counter(wanted)).values())
    return 2 * common / (len(words) + len(wanted))
