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

from benchmarks.seeds_claims import claims_table, mean_accuracy, spread
from benchmarks.seeds_score import LEADERBOARD, score
from llama2_jax.data.records import DOMAINS
from llama2_jax.evaluation.measures import MEASURES, Measure
from llama2_jax.evaluation.reward_accuracy import GROUPS
from llama2_jax.paths import expand_home
from llama2_jax.report.summary import summary

HEADLINES = tuple(measure for measure in MEASURES if measure.headline)
SEEN = tuple(measure for measure in MEASURES if measure.seen)
# Training uses the words of known instructions; new ones are measured where a run has both.
INSTRUCTIONS = (("instruction kept", "instruction_kept"), ("new instruction kept", "new_instruction_kept"))


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
    instructions = itertools.chain(*(instructions_table(reports, *table) for table in INSTRUCTIONS))
    print("\n".join(["", *instructions, *accuracy_table(reports), "", *claims_table(reports)]))
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
        cells = [spread([r["versions"][index].get(measure.name) for r in reports.values()]) for measure in measures]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return rows


def in_words(reports: dict[int, dict]) -> list[str]:
    """Returns what changed from the first to the last version, in sentences on the medians over the seeds."""
    versions = [report["versions"] for report in reports.values()]
    names = [row["name"] for row in versions[0]]
    medians = [
        {measure.name: median([rows[index].get(measure.name) for rows in versions]) for measure in MEASURES}
        for index in (0, -1)
    ]
    return ["Medians over the seeds:", *summary(medians, (names[0], names[-1]), MEASURES)]


def instructions_table(reports: dict[int, dict], title: str, field: str) -> list[str]:
    """Returns the share of answers that keep the dialogue's instruction, by turn, and an empty line.

    Args:
      reports: by seed. One of earlier code may lack the field or a turn; if all do, there is no table.
      title: its first column's.
      field: "instruction_kept", or "new_instruction_kept".
    """
    names = [row["name"] for row in next(iter(reports.values()))["versions"]]
    kept = [[row.get(field) or {} for row in report["versions"]] for report in reports.values()]
    known = {turn for of_seed in kept for by_turn in of_seed for turn, value in by_turn.items() if value is not None}
    if not known:
        return []
    turns = sorted(known, key=int)
    rows = [f"| {title} | " + " | ".join(f"turn {turn}" for turn in turns) + " |", "|---" * (len(turns) + 1) + "|"]
    for index, name in enumerate(names):
        cells = [spread([of_seed[index].get(turn) for of_seed in kept]) for turn in turns]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*rows, ""]


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


def median(values: Sequence[float | None]) -> float | None:
    """Returns the median of the values that are known; None if there are none."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


if __name__ == "__main__":
    main()
