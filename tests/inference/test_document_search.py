"""The search gives what an obvious BM25 gives."""

import math
import random
import re

import pytest

from llama2_jax.inference.document_search import search

WORDS = ["the", "cat", "sat", "on", "a", "mat", "dog", "ran", "far", "from", "red", "house", "near", "old", "tree"]


def slow_scores(query, passages, k1, b):
    """The formula, word by word and passage by passage."""
    texts = [re.findall(r"\w+", passage.lower()) for passage in passages]
    mean = sum(map(len, texts)) / len(texts)
    scores = []
    for text in texts:
        score = 0.0
        for word in set(re.findall(r"\w+", query.lower())):
            containing = sum(word in other for other in texts)
            weight = math.log(1 + (len(texts) - containing + 0.5) / (containing + 0.5))
            frequency = text.count(word)
            score += weight * frequency / (k1 * (1 - b + b * len(text) / mean) + frequency)
        scores.append(score)
    return scores


def test_the_best_passage_of_random_ones():
    draw = random.Random(0)
    for _ in range(200):
        passages = [" ".join(draw.choices(WORDS, k=draw.randint(1, 20))) for _ in range(draw.randint(1, 12))]
        query, k1, b = (
            " ".join(draw.choices(WORDS, k=draw.randint(1, 4))),
            draw.choice((1.2, 2.0)),
            draw.choice((0, 0.75)),
        )
        scores = slow_scores(query, passages, k1, b)
        if not any(scores):
            with pytest.raises(ValueError, match="nothing was found"):
                search(query, documents=passages, k1=k1, b=b)
            continue
        found = search(query, documents=passages, k1=k1, b=b)
        assert scores[passages.index(found)] == pytest.approx(max(scores))


def test_documents_are_split_at_empty_lines():
    documents = ["Badorton is a city.\n\nThe ruler of Bador is Lola.\nShe is old.", "The ruler of Gania is Zuso."]
    assert search("Who is the ruler of BADOR?", documents=documents) == "The ruler of Bador is Lola.\nShe is old."
    assert search("ruler", documents=["a ruler", "a ruler"]) == "a ruler"


@pytest.mark.parametrize("documents", [[], [""], ["something else"]])
def test_nothing_to_find(documents):
    with pytest.raises(ValueError, match="nothing was found"):
        search("ruler ?!", documents=documents)
