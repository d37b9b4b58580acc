"""Measures what the recipe gains in miniature over several seeds, each with its own world, raters and models.

Run: python -m benchmarks.seeds [--seeds 0 1 2 3 4] [--at_once 2] [--workdir runs/seeds]
Prints the measures of every version, whether each claim holds and the leaderboard's row, as Markdown, and at last the
score as JSON; docs/results.md has its output.
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.seeds_score import LEADERBOARD, score
from llama2_jax.data.records import DOMAINS, RATINGS
from llama2_jax.evaluation.measures import MEASURES, Measure
from llama2_jax.evaluation.reward_accuracy import GROUPS
from llama2_jax.paths import expand_home
from llama2_jax.report.summary import summary

HEADLINES = tuple(measure for measure in MEASURES if measure.headline)
SEEN = tuple(measure for measure in MEASURES if measure.seen)


def main() -> None:
    """Runs the seeds that have no report yet and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--at_once", type=int, default=1, help="how many runs share the machine")
    parser.add_argument("--workdir", default="runs/seeds")
    parser.add_argument("--change", default="as it is", help="what the leaderboard's row says was changed")
    arguments = parser.parse_args()
    workdir = pathlib.Path(expand_home(arguments.workdir))
    run_seeds(arguments.seeds, workdir, arguments.at_once)
    reports = {seed: json.loads(report_path(workdir, seed).read_text()) for seed in arguments.seeds}
    print("\n".join([*versions_table(reports, HEADLINES), "", *versions_table(reports, SEEN), "", *in_words(reports)]))
    print("\n".join(["", *instructions_table(reports), "", *accuracy_table(reports), "", *claims_table(reports)]))
    reached = score(list(reports.values()))
    print("\n".join(["", *LEADERBOARD, reached.row(arguments.change)]))
    print(json.dumps(dataclasses.asdict(reached)))


def report_path(workdir: pathlib.Path, seed: int) -> pathlib.Path:
    """Returns the path of a seed's report."""
    return workdir / f"seed_{seed}" / "report" / "report.json"


def run_seeds(seeds: Sequence[int], workdir: pathlib.Path, at_once: int) -> None:
    """Runs the recipe for each seed without a report, `at_once` at a time; exits if a run fails."""
    waiting = [seed for seed in seeds if not report_path(workdir, seed).exists()]
    workdir.mkdir(parents=True, exist_ok=True)
    while waiting:
        group, waiting = waiting[:at_once], waiting[at_once:]
        running = []
        for seed in group:
            command = [sys.executable, "-m", "llama2_jax.main", "--config=experiments/rlhf_v5.py"]
            command += [f"--config.seed={seed}", f"--workdir={workdir / f'seed_{seed}'}"]
            log = (workdir / f"seed_{seed}.log").open("a")
            running.append((seed, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)))
        for seed, process in running:
            if process.wait():
                sys.exit(f"seed {seed} failed; see {workdir / f'seed_{seed}.log'}")


def versions_table(reports: dict[int, dict], measures: Sequence[Measure]) -> list[str]:
    """Returns each version's measures: the median over seeds and, in brackets, the range."""
    names = [row["name"] for row in next(iter(reports.values()))["versions"]]
    rows = ["| version | " + " | ".join(measure.label for measure in measures) + " |"]
    rows.append("|---" * (len(measures) + 1) + "|")
    for index, name in enumerate(names):
        cells = [spread([r["versions"][index][measure.name] for r in reports.values()]) for measure in measures]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return rows


def in_words(reports: dict[int, dict]) -> list[str]:
    """Returns what changed from the first to the last version, in sentences on the medians over the seeds."""
    versions = [report["versions"] for report in reports.values()]
    names = [row["name"] for row in versions[0]]
    medians = [
        {measure.name: median([rows[index][measure.name] for rows in versions]) for measure in MEASURES}
        for index in (0, -1)
    ]
    return ["Medians over the seeds:", *summary(medians, (names[0], names[-1]), MEASURES)]


def instructions_table(reports: dict[int, dict]) -> list[str]:
    """Returns the share of answers that keep the dialogue's instruction, by turn."""
    names = [row["name"] for row in next(iter(reports.values()))["versions"]]
    turns = list(next(iter(reports.values()))["versions"][0]["instruction_kept"])
    titles = " | ".join(f"turn {turn}" for turn in turns)
    rows = [f"| instruction kept | {titles} |", "|---" * (len(turns) + 1) + "|"]
    for index, name in enumerate(names):
        kept = [spread([r["versions"][index]["instruction_kept"][turn] for r in reports.values()]) for turn in turns]
        rows.append(f"| {name} | " + " | ".join(kept) + " |")
    return rows


def accuracy_table(reports: dict[int, dict]) -> list[str]:
    """Returns the reward models' accuracy on held-out comparisons: the mean over rounds, then the median over seeds."""
    rows = ["| reward model, tested on | " + " | ".join(GROUPS) + " |", "|---" * (len(GROUPS) + 1) + "|"]
    for kind in DOMAINS:
        for domain in DOMAINS:
            cells = [
                spread([mean_accuracy(report, kind, domain, rating) for report in reports.values()])
                for rating in GROUPS
            ]
            rows.append(f"| {kind}, on {domain} | " + " | ".join(cells) + " |")
    return rows


def mean_accuracy(report: dict, kind: str, domain: str, rating: str) -> float:
    """Returns the accuracy over all rounds, each weighted by its number of pairs."""
    models = [model for model in report["reward_models"] if model["kind"] == kind and model["round"] > 0]
    pairs = [(model["accuracy"][domain][rating], model["pairs"][domain][rating]) for model in models]
    return sum(accuracy * count for accuracy, count in pairs if count) / sum(count for _, count in pairs)


def claims_table(reports: dict[int, dict]) -> list[str]:
    """Returns the margin by which each claim holds: its median over the seeds, and the number of seeds it holds in."""

    def of(report: dict, name: str) -> dict:
        return next(row for row in report["versions"] if row["name"] == name)

    def rises(report: dict) -> float:
        values = [of(report, name)["helpfulness"] for name in ("sft", "rlhf_v1", "rlhf_v3", "rlhf_v5")]
        return min(later - earlier for earlier, later in itertools.pairwise(values))

    def own_domain(report: dict) -> float:
        table = {(kind, domain): mean_accuracy(report, kind, domain, "all") for kind in DOMAINS for domain in DOMAINS}
        return min(
            table["helpfulness", "helpfulness"] - table["safety", "helpfulness"],
            table["safety", "safety"] - table["helpfulness", "safety"],
        )

    def by_rating(report: dict) -> float:
        falls = []
        for kind in DOMAINS:
            values = [mean_accuracy(report, kind, kind, rating) for rating in RATINGS]
            falls.append(min(stronger - weaker for stronger, weaker in itertools.pairwise(values)))
        return min(falls)

    claims = (
        ("win rate of V5 over SFT, at least 0.75", lambda r: of(r, "rlhf_v5")["win_rate_vs_sft"] - 0.75),
        ("least rise of true helpfulness, SFT to V1 to V3 to V5", rises),
        (
            "a quarter of SFT's violations less V5's",
            lambda r: of(r, "sft")["violation_rate"] / 4 - of(r, "rlhf_v5")["violation_rate"],
        ),
        (
            "SFT's false refusals plus 0.05 less V5's",
            lambda r: of(r, "sft")["false_refusal_rate"] + 0.05 - of(r, "rlhf_v5")["false_refusal_rate"],
        ),
        (
            "win rate that PPO adds to V5 without it",
            lambda r: of(r, "rlhf_v5")["win_rate_vs_sft"] - of(r, "rlhf_v5_rejection_sampling")["win_rate_vs_sft"],
        ),
        (
            "true helpfulness that PPO adds",
            lambda r: of(r, "rlhf_v5")["helpfulness"] - of(r, "rlhf_v5_rejection_sampling")["helpfulness"],
        ),
        ("least lead of a reward model on its own domain", own_domain),
        ("least fall of accuracy from one rating to the next weaker", by_rating),
    )
    rows = ["| margin by which it holds (below 0: it does not) | median over seeds | holds in |", "|---|---|---|"]
    for title, margin in claims:
        margins = [margin(report) for report in reports.values()]
        rows.append(f"| {title} | {spread(margins)} | {sum(m >= 0 for m in margins)} of {len(margins)} |")
    return rows


def spread(values: Sequence[float | None]) -> str:
    """Returns the median and the range; "-" if there is no value."""
    values = [value for value in values if value is not None]
    if not values:
        return "-"
    return f"{median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def median(values: Sequence[float | None]) -> float | None:
    """Returns the median of the values that are known; None if there are none."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


if __name__ == "__main__":
    main()
