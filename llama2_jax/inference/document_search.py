"""A search in given documents as a tool: the passage that fits a query best, by BM25 (section 5.1).

Robertson and Zaragoza (2009), "The Probabilistic Relevance Framework: BM25 and Beyond", section 3.4. A passage's score
is, over the distinct words of the query,

    sum of log(1 + (N - n + 0.5) / (n + 0.5)) * f / (k1 * (1 - b + b * length / mean_length) + f)

with N passages, n of which have the word, f times in this one. The 1 in the logarithm is not theirs: without it a word
in more than half of the passages would count against those that have it.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Mapping, Sequence

# In the range that the authors recommend, 1.2 to 2 and 0.5 to 0.8.
K1, B = 1.2, 0.75

_WORD = re.compile(r"\w+")


def search(query: str, *, documents: Sequence[str], k1: float = K1, b: float = B) -> str:
    """Returns the best passage; of several that are alike the first.

    Args:
      query: words.
      documents: texts. A passage is what stands between empty lines.
      k1: how slowly further occurrences of a word in a passage stop to count.
      b: how much of a passage's length is made up for, from 0 to 1.

    Raises:
      ValueError: if no passage has a word of the query.
    """
    index = _index(tuple(documents))
    scores = _scores(index, dict.fromkeys(_words(query)), k1, b)
    if not scores:
        raise ValueError("nothing was found")
    return index.passages[max(scores, key=lambda passage: (scores[passage], -passage))]


@dataclasses.dataclass(frozen=True)
class _Index:
    """Passages, the number of words of each, and for each word how often it is in which."""

    passages: Sequence[str]
    lengths: Sequence[int]
    occurrences: Mapping[str, Mapping[int, int]]


@functools.lru_cache(maxsize=4)
def _index(documents: tuple[str, ...]) -> _Index:
    passages = [part.strip() for text in documents for part in re.split(r"\n\s*\n", text) if part.strip()]
    counts = [collections.Counter(_words(passage)) for passage in passages]
    occurrences: dict[str, dict[int, int]] = collections.defaultdict(dict)
    for passage, count in enumerate(counts):
        for word, times in count.items():
            occurrences[word][passage] = times
    return _Index(passages, [count.total() for count in counts], dict(occurrences))


def _scores(index: _Index, words: Mapping[str, None], k1: float, b: float) -> dict[int, float]:
    """Returns the score of each passage that has one of the words."""
    scores: dict[int, float] = collections.defaultdict(float)
    passages, mean = len(index.passages), sum(index.lengths) / max(1, len(index.passages))
    for word in words:
        found = index.occurrences.get(word, {})
        weight = math.log1p((passages - len(found) + 0.5) / (len(found) + 0.5))
        for passage, times in found.items():
            scores[passage] += weight * times / (k1 * (1 - b + b * index.lengths[passage] / mean) + times)
    return dict(scores)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
