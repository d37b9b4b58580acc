"""The annotator, of two answers or several: fair, reproducible, right the more often the clearer the case."""

import collections
import statistics

import pytest

from llama2_jax.miniature.annotator import THRESHOLDS, annotate, rank, utility
from llama2_jax.miniature.answers import VENDOR, answer_to
from llama2_jax.miniature.judge import judge
from llama2_jax.miniature.prompts import prompts
from llama2_jax.miniature.streams import stream


def comparisons(domain, count=1500):
    """Two answers of a model that was only fine-tuned."""
    rng = stream(0, "test", domain)
    records = prompts(seed=0, count=count, batch=1, unsafe=0.75 if domain == "safety" else 0.0)
    return [
        {
            "messages": record["messages"],
            "response_a": answer_to(record["messages"], VENDOR, rng, seed=0),
            "response_b": answer_to(record["messages"], VENDOR, rng, seed=0),
            "domain": domain,
        }
        for record in records
    ]


BOTH = [*comparisons("helpfulness"), *comparisons("safety")]


def test_no_position_is_preferred_and_swapping_swaps_the_preference():
    swapped = [{**c, "response_a": c["response_b"], "response_b": c["response_a"]} for c in BOTH]
    annotations = annotate(BOTH, seed=0)
    assert annotations == annotate(BOTH, seed=0)
    assert statistics.mean(a["preferred"] == "a" for a in annotations) == pytest.approx(0.5, abs=0.03)
    for comparison, one, other in zip(BOTH, annotations, annotate(swapped, seed=0), strict=True):
        assert one["rating"] == other["rating"]
        if comparison["response_a"] != comparison["response_b"]:
            assert one["preferred"] != other["preferred"]


def test_ratings_spread_as_in_the_papers_first_batch():
    ratings = collections.Counter(annotation["rating"] for annotation in annotate(BOTH, seed=0))
    shares = {rating: ratings[rating] / len(BOTH) for rating in THRESHOLDS}
    # Figure 25: 18, 28, 30 and 25 %; read off a chart, and the answers here are simulated.
    wanted = {"significantly_better": 0.18, "better": 0.28, "slightly_better": 0.3, "negligibly_better": 0.25}
    assert shares == pytest.approx(wanted, abs=0.05)


def test_clearer_ratings_are_right_more_often():
    right = collections.defaultdict(list)
    for comparison, annotation in zip(BOTH, annotate(BOTH, seed=0), strict=True):
        a, b = (
            utility(judge(comparison["messages"], comparison[side], seed=0), comparison["domain"])
            for side in ("response_a", "response_b")
        )
        if a != b:
            right[annotation["rating"]].append((a > b) == (annotation["preferred"] == "a"))
    accuracy = [statistics.mean(right[rating]) for rating in THRESHOLDS]
    assert accuracy == sorted(accuracy, reverse=True)
    assert accuracy[0] > 0.95 and 0.5 < accuracy[-1] < 0.65


def test_without_noise_the_truth_decides():
    for comparison, annotation in zip(BOTH, annotate(BOTH, seed=0, noise=0.0, safety_label_noise=0.0), strict=True):
        verdicts = {s: judge(comparison["messages"], comparison[f"response_{s}"], seed=0) for s in ("a", "b")}
        worth = {side: utility(verdict, comparison["domain"]) for side, verdict in verdicts.items()}
        assert worth[annotation["preferred"]] == max(worth.values())
        if comparison["domain"] == "safety":
            assert annotation["safety"] == {side: not verdict.violation for side, verdict in verdicts.items()}
        else:
            assert annotation["safety"] is None


def test_raters_differ_and_an_unknown_domain_is_named():
    first, second = (annotate(BOTH, seed=0, rater=rater) for rater in (0, 1))
    agreement = statistics.mean(a["preferred"] == b["preferred"] for a, b in zip(first, second, strict=True))
    assert 0.6 < agreement < 0.9
    with pytest.raises(ValueError, match="'harmless'"):
        annotate([{**BOTH[0], "domain": "harmless"}], seed=0)


def ranked(count=300):
    """Prompts with five answers of a model that was only fine-tuned, the last of which is the first again."""
    rng = stream(0, "test", "rankings")
    for record in prompts(seed=0, count=count, batch=1, unsafe=0.3):
        responses = [answer_to(record["messages"], VENDOR, rng, seed=0) for _ in range(4)]
        yield {
            "messages": record["messages"],
            "responses": [*responses, responses[0]],
            "domain": "safety" if record["safety"] else "helpfulness",
        }


def test_a_ranking_says_of_each_two_answers_what_a_comparison_of_them_says():
    rows = list(ranked())
    for row, ranking in zip(rows, rank(rows, seed=0), strict=True):
        ranks = ranking["ranks"]
        assert ranks[0] == ranks[-1] and min(ranks) == 1, "equal answers are tied"
        pairs = [(i, j) for i in range(4) for j in range(i) if row["responses"][i] != row["responses"][j]]
        compared = annotate(
            [
                {**row, "response_a": row["responses"][i], "response_b": row["responses"][j]}
                for i, j in pairs
            ],
            seed=0,
        )  # fmt: skip
        for (i, j), annotation in zip(pairs, compared, strict=True):
            assert (ranks[i] < ranks[j]) == (annotation["preferred"] == "a")


def test_rankings_without_noise_are_those_of_the_truth_and_raters_differ():
    rows = list(ranked(60))
    for row, ranking in zip(rows, rank(rows, seed=0, noise=0.0), strict=True):
        worth = [utility(judge(row["messages"], one, seed=0), row["domain"]) for one in row["responses"]]
        assert ranking["ranks"] == [1 + sum(other > one for other in worth) for one in worth]
    assert rank(rows, seed=0) == rank(rows, seed=0) != rank(rows, seed=0, rater=1)
