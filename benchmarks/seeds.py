"""What the recipe gains in miniature, over several seeds: every seed has a world, raters and models of its own.

Run: python -m benchmarks.seeds [--seeds 0 1 2 3 4] [--at_once 2] [--workdir runs/seeds]
Prints, as Markdown, the measures of every version and whether each claim holds; docs/results.md has its output.
"""

import argparse
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Sequence

RATINGS = ("significantly_better", "better", "slightly_better", "negligibly_better")
MEASURES = (
    ("helpfulness", "true helpfulness"),
    ("win_rate_vs_sft", "win rate over SFT"),
    ("violation_rate", "violations"),
    ("false_refusal_rate", "false refusals"),
)


def main() -> None:
    """Runs the seeds that have no report yet and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--at_once", type=int, default=1, help="how many runs share the machine")
    parser.add_argument("--workdir", default="runs/seeds")
    arguments = parser.parse_args()
    workdir = pathlib.Path(arguments.workdir)
    run_seeds(arguments.seeds, workdir, arguments.at_once)
    reports = {seed: json.loads(report_path(workdir, seed).read_text()) for seed in arguments.seeds}
    print("\n".join([*versions_table(reports), "", *instructions_table(reports), "", *accuracy_table(reports)]))
    print("\n".join(["", *claims_table(reports)]))


def report_path(workdir: pathlib.Path, seed: int) -> pathlib.Path:
    """Where a seed's report is."""
    return workdir / f"seed_{seed}" / "report" / "report.json"


def run_seeds(seeds: Sequence[int], workdir: pathlib.Path, at_once: int) -> None:
    """Runs the recipe for each seed without a report, so many at once; exits where a run fails."""
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


def versions_table(reports: dict[int, dict]) -> list[str]:
    """Each version's measures: the median over seeds and, in brackets, the least and the most."""
    names = [row["name"] for row in next(iter(reports.values()))["versions"]]
    rows = ["| version | " + " | ".join(title for _, title in MEASURES) + " |", "|---" * (len(MEASURES) + 1) + "|"]
    for index, name in enumerate(names):
        cells = [spread([r["versions"][index][field] for r in reports.values()]) for field, _ in MEASURES]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return rows


def instructions_table(reports: dict[int, dict]) -> list[str]:
    """The share of answers that keep the dialogue's instruction, by turn."""
    names = [row["name"] for row in next(iter(reports.values()))["versions"]]
    turns = list(next(iter(reports.values()))["versions"][0]["instruction_kept"])
    titles = " | ".join(f"turn {turn}" for turn in turns)
    rows = [f"| instruction kept | {titles} |", "|---" * (len(turns) + 1) + "|"]
    for index, name in enumerate(names):
        kept = [spread([r["versions"][index]["instruction_kept"][turn] for r in reports.values()]) for turn in turns]
        rows.append(f"| {name} | " + " | ".join(kept) + " |")
    return rows


def accuracy_table(reports: dict[int, dict]) -> list[str]:
    """Accuracy of the reward models on held-out comparisons: the mean over rounds, then the median over seeds."""
    rows = ["| reward model, tested on | " + " | ".join((*RATINGS, "all")) + " |", "|---" * 6 + "|"]
    for kind in ("helpfulness", "safety"):
        for domain in ("helpfulness", "safety"):
            cells = [
                spread([mean_accuracy(report, kind, domain, rating) for report in reports.values()])
                for rating in (*RATINGS, "all")
            ]
            rows.append(f"| {kind}, on {domain} | " + " | ".join(cells) + " |")
    return rows


def mean_accuracy(report: dict, kind: str, domain: str, rating: str) -> float:
    """The accuracy over all rounds, each weighted by its number of pairs."""
    models = [model for model in report["reward_models"] if model["kind"] == kind and model["round"] > 0]
    pairs = [(model["accuracy"][domain][rating], model["pairs"][domain][rating]) for model in models]
    return sum(accuracy * count for accuracy, count in pairs if count) / sum(count for _, count in pairs)


def claims_table(reports: dict[int, dict]) -> list[str]:
    """Whether each claim holds, on the medians over the seeds and in how many of them."""

    def of(report: dict, name: str) -> dict:
        return next(row for row in report["versions"] if row["name"] == name)

    def rises(report: dict) -> float:
        values = [of(report, name)["helpfulness"] for name in ("sft", "rlhf_v1", "rlhf_v3", "rlhf_v5")]
        return min(later - earlier for earlier, later in itertools.pairwise(values))

    def own_domain(report: dict) -> float:
        table = {
            (kind, domain): mean_accuracy(report, kind, domain, "all")
            for kind in ("helpfulness", "safety")
            for domain in ("helpfulness", "safety")
        }
        return min(
            table["helpfulness", "helpfulness"] - table["safety", "helpfulness"],
            table["safety", "safety"] - table["helpfulness", "safety"],
        )

    def by_rating(report: dict) -> float:
        falls = []
        for kind in ("helpfulness", "safety"):
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
    """The median, and the least and the most; "-" where there is no value."""
    values = [value for value in values if value is not None]
    if not values:
        return "-"
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
