"""Keeps what the tables read of runs' reports, so that they can be printed again without the runs.

Run: python -m benchmarks.kept_reports --workdir=runs/seeds --target=docs/seeds [--seeds 12 13]
Copies seed_<n>/report/report.json and those of the experiments on it, without what neither benchmarks.seeds nor
benchmarks.findings reads; both then take --workdir=docs/seeds.
"""

import argparse
import json
import pathlib
from collections.abc import Mapping, Sequence

from benchmarks.findings import EXPERIMENTS
from llama2_jax.paths import expand_home

# Parts that no table reads: of the report, of a version and of a reward model of the recipe.
LEFT_OUT = ("reward_quality", "annotations", "training", "ledger")
OF_VERSIONS = ("safety_summary", "reward_differences")
OF_REWARD_MODELS = ("tests",)


def main() -> None:
    """Copies the reports that there are, and names them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", default="runs/seeds")
    parser.add_argument("--target", type=pathlib.Path, default=pathlib.Path("docs/seeds"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    arguments = parser.parse_args()
    for path in keep(pathlib.Path(expand_home(arguments.workdir)), arguments.target, arguments.seeds):
        print(path)


def keep(workdir: pathlib.Path, target: pathlib.Path, seeds: Sequence[int]) -> list[pathlib.Path]:
    """Writes the reports of the seeds' folders that there are, in little, into folders of the same names."""
    written = []
    for name in (f"{kind}_{seed}" for seed in seeds for kind in ("seed", *EXPERIMENTS)):
        report = pathlib.Path(name) / "report" / "report.json"
        if (workdir / report).exists():
            (target / report).parent.mkdir(parents=True, exist_ok=True)
            (target / report).write_text(json.dumps(in_little(json.loads((workdir / report).read_text()))) + "\n")
            written.append(target / report)
    return written


def in_little(report: Mapping) -> dict:
    """Returns a report without what no table reads."""
    kept = {name: value for name, value in report.items() if name not in LEFT_OUT}
    for name, dropped in (("versions", OF_VERSIONS), ("reward_models", OF_REWARD_MODELS)):
        kept[name] = [_without(row, dropped) for row in report.get(name, ())]
    kept["ppo"] = [_without(row, ("curves",)) for row in report.get("ppo", ())]
    return kept


def _without(row: Mapping, names: Sequence[str]) -> dict:
    return {name: value for name, value in row.items() if name not in names}


if __name__ == "__main__":
    main()
