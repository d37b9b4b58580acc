"""Texts of which no two are nearly the same, by ROUGE-L (Self-Instruct, Wang et al. 2022)."""

from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

# Of a score: ROUGE-L is computed in another order than its bound.
_ROUNDING = 1e-9


class DistinctTexts:
    """Texts that are each unlike all before them.

    A text is compared with those alone that share enough words: the longest common subsequence, which ROUGE-L counts,
    has no more words than two texts have in common, so nothing that is too much alike is overlooked.
    """

    def __init__(self, most_alike: float, given: Iterable[str] = ()):
        """Begins with some texts.

        Args:
          most_alike: the largest ROUGE-L F1, 0 to 1, that two texts may have; 1 leaves out exact repetitions alone.
          given: texts that are there, however alike they are.

        Raises:
          ImportError: without the package rouge-score.
        """
        self._most_alike = most_alike
        self._words, self._scorer = _rouge()
        self._texts: list[str] = []
        self._exact: set[str] = set()
        self._sizes = array("l")
        # By word the texts that have it, and how often each does.
        self._index: dict[str, tuple[array, array]] = {}
        for text in given:
            self._put(text, Counter(self._words.tokenize(text)))

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> bool:
        """Adds a text if it is unlike all that are there; returns whether it was added."""
        words = Counter(self._words.tokenize(text))
        if text in self._exact or self._alike(text, words):
            return False
        self._put(text, words)
        return True

    def _put(self, text: str, words: Counter) -> None:
        for word, count in words.items():
            indices, counts = self._index.setdefault(word, (array("l"), array("l")))
            indices.append(len(self._texts))
            counts.append(count)
        self._sizes.append(words.total())
        self._exact.add(text)
        self._texts.append(text)

    def _alike(self, text: str, words: Counter) -> bool:
        if not self._texts:
            return False
        common = np.zeros(len(self._texts), np.int64)
        for word, count in words.items():
            if word in self._index:
                # A text has a word once in the index, so each place is added to once.
                indices, counts = (np.frombuffer(one, dtype="l") for one in self._index[word])
                common[indices] += np.minimum(counts, count)
        sizes = np.frombuffer(self._sizes, dtype="l") + words.total()
        most = 2 * common / np.maximum(sizes, 1)
        return any(
            self._scorer.score(self._texts[index], text)["rougeL"].fmeasure > self._most_alike
            for index in np.flatnonzero(most > self._most_alike - _ROUNDING)
        )


def _rouge() -> tuple[Any, Any]:
    """Returns what splits a text into words, and what scores two texts."""
    try:
        from rouge_score import rouge_scorer, tokenizers
    except ImportError:
        raise ImportError("ROUGE-L needs the package rouge-score: pip install -e '.[instructions]'") from None
    words = tokenizers.DefaultTokenizer(use_stemmer=False)
    return words, rouge_scorer.RougeScorer(["rougeL"], tokenizer=words)
