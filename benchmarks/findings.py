"""The paper's figures and tables as the miniature shows them, over seeds (docs/findings.md).

Run: python -m benchmarks.findings [--seeds 0 1 2 3 4] [--workdir runs/seeds] [--run [lima koala ..]]
    [--plots docs/figures]
Reads the reports of benchmarks.seeds under the workdir and those of the experiments on each seed's run, which --run
makes first where they are missing, all or those named: seed_<n> and <experiment>_<n>. Prints a table for each figure or
table of the paper, then of the other recipes (docs/recipes.md), each number the mean over the seeds that have it with
the half-width of its 95 % interval (Student's t); at last, as JSON, from how many seeds each is. With --plots it writes
plots of the figures, as SVG, into a folder.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from benchmarks.findings_plots import (
    TEMPERATURES,
    TURNS,
    Reports,
    Rows,
    attention_by_turn,
    kept_by_turn,
    over_seeds,
    self_bleu,
    write_plots,
)
from benchmarks.findings_recipes import RECIPES
from benchmarks.seeds_score import half_width
from llama2_jax.evaluation.reward_accuracy import GROUPS
from llama2_jax.paths import expand_home

# On the recipe itself, then the other recipes.
OF_THE_PAPER = ("reward_scaling", "reward_ablation", "safety_scaling", "bag_ablation", "diversity")
EXPERIMENTS = (*OF_THE_PAPER, *dict.fromkeys(experiment for _, experiment, *_ in RECIPES))


def main() -> None:
    """Runs what is missing, if asked to, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--workdir", default="runs/seeds")
    parser.add_argument(
        "--run", nargs="*", choices=EXPERIMENTS, metavar="experiment",
        help="run the experiments that are missing first: all, or these of " + ", ".join(EXPERIMENTS),
    )  # fmt: skip
    parser.add_argument("--plots", type=pathlib.Path, help="a folder for plots of the figures")
    arguments = parser.parse_args()
    workdir = pathlib.Path(expand_home(arguments.workdir))
    if arguments.run is not None:
        run_experiments(arguments.run or EXPERIMENTS, arguments.seeds, workdir)
    reports = read_reports(arguments.seeds, workdir)
    if not any(reports.values()):
        sys.exit(f"{workdir} has no report of the seeds {arguments.seeds}: run benchmarks.seeds with it first")
    if arguments.plots:
        write_plots(reports, arguments.plots)
    counts = {}
    for title, experiment, columns, rows in (*FINDINGS, *RECIPES):
        found = table(reports[experiment], columns, rows)
        if found:
            counts[title] = sum(any(True for _ in rows(report)) for report in reports[experiment])
            print("\n".join([f"### {title}", "", *found, ""]))
    print(json.dumps(counts))


def run_experiments(experiments: Sequence[str], seeds: Sequence[int], workdir: pathlib.Path) -> None:
    """Runs each experiment on each seed's finished run where it has no report; exits if one fails."""
    for seed in seeds:
        for experiment in experiments:
            folder = workdir / f"{experiment}_{seed}"
            if (folder / "report" / "report.json").exists():
                continue
            command = [sys.executable, "-m", "llama2_jax.main", f"--config=experiments/{experiment}.py"]
            command += [f"--config.seed={seed}", f"--config.source_run={workdir / f'seed_{seed}'}"]
            with (workdir / f"{experiment}_{seed}.log").open("a") as log:
                finished = subprocess.run([*command, f"--workdir={folder}"], stdout=log, stderr=subprocess.STDOUT)
            if finished.returncode:
                sys.exit(f"{experiment} on seed {seed} failed; see {log.name}")


def read_reports(seeds: Sequence[int], workdir: pathlib.Path) -> Reports:
    """Returns the reports that there are."""
    names = {"rlhf_v5": "seed", **{name: name for name in EXPERIMENTS}}
    paths = {
        experiment: [workdir / f"{folder}_{seed}" / "report" / "report.json" for seed in seeds]
        for experiment, folder in names.items()
    }
    return {
        experiment: [json.loads(path.read_text()) for path in of_seeds if path.exists()]
        for experiment, of_seeds in paths.items()
    }


def table(reports: Sequence[Mapping], columns: Sequence[str], rows: Callable[[Mapping], Rows]) -> list[str]:
    """Returns a table as Markdown: the mean over the reports and its interval; nothing if no report has a number."""
    cells = over_seeds(reports, rows)
    if not any(known for of_label in cells.values() for known in of_label):
        return []
    head = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    return head + [
        f"| {label} | " + " | ".join(mean_and_interval(known) for known in of_label) + " |"
        for label, of_label in cells.items()
    ]


def mean_and_interval(values: Sequence[float]) -> str:
    """Returns "mean ± half-width of the 95 % interval"; the mean alone of one value, "-" of none."""
    if not values:
        return "-"
    width = half_width(values)
    return f"{statistics.mean(values):.3f}" + ("" if width is None else f" ± {width:.3f}")


def by_rating(report: Mapping) -> Rows:
    """The last round's reward models, on both domains."""
    last = max((row["round"] for row in report["reward_models"]), default=0)
    for row in report["reward_models"]:
        if row["round"] == last:
            for domain, accuracy in row["accuracy"].items():
                if domain in ("helpfulness", "safety"):
                    yield f"{row['kind']} model, on {domain}", [accuracy[group] for group in GROUPS]


def by_round(report: Mapping) -> Rows:
    """Each reward model on its own domain."""
    for row in report["reward_models"]:
        own = row["accuracy"][row["kind"]]
        yield f"{row['kind']}, round {row['round']}", [own["all"], own["significantly_better"]]


def by_part(report: Mapping) -> Rows:
    """Reward models on parts of the comparisons, each on its own domain."""
    for row in report["reward_scaling"]:
        own = row["accuracy"][row["kind"]]
        values = [sum(row["comparisons"].values()), own["all"], own["significantly_better"]]
        yield f"{row['kind']}, {row['prompt_fraction']:g} of the prompts", values


def by_setting(report: Mapping) -> Rows:
    """Reward models with one setting changed, each on its own domain."""
    for row in report["reward_ablation"]:
        unsafe = (row["tests"].get(row["kind"]) or {}).get("unsafe") or {}
        recall = (unsafe.get("configured") or {}).get("recall")
        yield row["stage"].replace("_", " "), [*(row["accuracy"][row["kind"]][group] for group in GROUPS), recall]


def by_samples(report: Mapping) -> Rows:
    """The last round's sweep: rewards of 1, 2, .. samples at each temperature."""
    for row in report["rejection_sampling"][-1:]:
        for temperature, curves in row["sweep"].items():
            for name in ("max", "median"):
                ends = [curves[name][0], curves[name][1], curves[name][-1]]
                yield f"{name}, temperature {temperature}", [*ends, ends[-1] - ends[0]]


def by_preprompt(report: Mapping) -> Rows:
    """What a safety preprompt changes in the safety score."""
    for row in report["context_distillation"]:
        for kind, found in (row["preprompts"].get("kinds") or {}).items():
            parts = found["by_score_before"]
            gains = [parts[0]["gain"], parts[-1]["gain"]] if len(parts) > 1 else [None, None]
            yield kind, [found["before"]["mean"], found["after"]["mean"], found["gain"]["mean"], *gains]


def by_version(report: Mapping) -> Rows:
    """Every version's answers to unseen prompts, by the judge and by the reward models."""
    names = ("win_rate_vs_sft", "helpfulness", "content", "style", "safety", "reward_helpfulness", "reward_safety")
    for row in report["versions"]:
        yield row["name"], [row.get(name) for name in names]


def by_safety_data(report: Mapping) -> Rows:
    """The versions that were fine-tuned on parts of the safety data."""
    names = ("reward_safety", "reward_helpfulness", "violation_rate", "false_refusal_rate", "borderline_refusal_rate")
    for row in report["versions"]:
        if row["name"].startswith("safety_"):
            yield f"{row['name'].removeprefix('safety_')} %", [row.get(name) for name in names]


def by_bag(report: Mapping) -> Rows:
    """V4 on the last round's answers and on those of all rounds."""
    for row in report["versions"]:
        yield row["name"], [row.get(name) for name in ("helpfulness", "content", "right", "style", "violation_rate")]


def by_temperature(report: Mapping) -> Rows:
    """Self-BLEU of each version's answers to each kind of prompts."""
    for kind in ("factual", "creative"):
        for version, found in self_bleu(report, kind):
            yield f"{version}, {kind}", found


def by_gain(report: Mapping) -> Rows:
    """What PPO gains on held-out prompts."""
    for row in report["ppo"]:
        names = ("held_out_reward_before", "held_out_reward", "held_out_gain", "held_out_general_change")
        yield row["stage"], [row.get(name) for name in names]


_IN_TURN = tuple(f"turn {turn}" for turn in TURNS)
_OF_VERSIONS = ("wins over SFT", "helpfulness", "content", "style", "safety", "helpfulness reward", "safety reward")
_OF_BAGS = ("helpfulness", "content", "right", "style", "violations")
_OF_SAFETY = ("safety reward", "helpfulness reward", "violations", "false refusals", "of borderline prompts")
_OF_PREPROMPTS = ("score before", "after", "gain", "where it was lowest", "where it was highest")
_OF_PARTS = ("comparisons", "all pairs", "significantly better")
# The title, the experiment whose reports have it, the columns and what a report gives.
FINDINGS = (
    ("Table 8: accuracy by rating", "rlhf_v5", GROUPS, by_rating),
    ("Figure 6: accuracy over rounds", "rlhf_v5", _OF_PARTS[1:], by_round),
    ("Figure 6: accuracy over comparisons", "reward_scaling", _OF_PARTS, by_part),
    ("Tables 28 and 29: margin and auxiliary loss", "reward_ablation", (*GROUPS, "unsafe: recall"), by_setting),
    ("Figures 7 and 8: reward over samples", "rlhf_v5", ("1 sample", "2", "most", "most less 1"), by_samples),
    ("The bag of V4", "bag_ablation", _OF_BAGS, by_bag),
    ("Figures 11, 14 and 20: versions", "rlhf_v5", _OF_VERSIONS, by_version),
    ("PPO", "rlhf_v5", ("reward before", "after", "gain", "change of the general reward"), by_gain),
    ("Table 30: instructions kept", "rlhf_v5", _IN_TURN, kept_by_turn),
    ("Figure 10: attention to the system message", "rlhf_v5", _IN_TURN, attention_by_turn),
    ("Figures 15 and 33: safety data", "safety_scaling", _OF_SAFETY, by_safety_data),
    ("Figure 16: safety preprompts", "rlhf_v5", _OF_PREPROMPTS, by_preprompt),
    ("Figure 21: Self-BLEU", "diversity", TEMPERATURES, by_temperature),
)


if __name__ == "__main__":
    main()
