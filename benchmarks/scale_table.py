"""Makes the table of docs/scale.md: what the paper's stages need of a TPU slice, by --dry_run for each scale and stage.

    python -m benchmarks.scale_table                 # all rows that are not yet in benchmarks/scale_table.json
    python -m benchmarks.scale_table --rows=7b,13b   # only rows whose name contains one of these
    python -m benchmarks.scale_table --again         # also rows that are there

Each row is one run of its command, which is listed below the table, on any Linux machine with `pip install "jax[tpu]"`;
a row takes from half a minute to a few minutes of compiling. Finished rows are saved one by one, so it can be stopped
and started again.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping

ROOT = pathlib.Path(__file__).parents[1]
KEPT, PAGE = ROOT / "benchmarks/scale_table.json", ROOT / "docs/scale.md"
BEGIN, END = "<!-- table: python -m benchmarks.scale_table -->", "<!-- end of table -->"

# A slice for each scale: rows are split 64 ways, which the smallest batches (64) still fill, times the scale's tensor.
SLICES = {"7b": "v5p:4x4x4", "13b": "v5p:4x4x8", "34b": "v5p:8x8x8", "70b": "v5p:8x8x8"}

# For each stage: its name in the table, the experiment and the stage.
STAGES = (
    ("pretraining, 4M tokens", "pretrain", "pretrain"),
    ("SFT, 64 rows", "sft", "sft"),
    ("reward model, 512 pairs", "rlhf_v1", "rlhf_v1_helpfulness_reward"),
    ("PPO, 512 rollouts", "rlhf_v5", "rlhf_v5_ppo"),
)


def commands() -> dict[str, tuple[str, ...]]:
    """Returns the arguments of each row's command."""
    return {
        f"{scale} {name}": (
            "-m", "llama2_jax.main", f"--config=experiments/{experiment}.py:{scale}", "--dry_run",
            f"--topology={topology}", f"--stages={stage}",
        )
        for scale, topology in SLICES.items()
        for name, experiment, stage in STAGES
    }  # fmt: skip


def measure(arguments: tuple[str, ...]) -> dict:
    """Returns one row: the dry run's report, or the message of its failure."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "report.json"
        done = subprocess.run(
            [sys.executable, *arguments, f"--dry_run_json={file}"], cwd=ROOT, capture_output=True, text=True
        )
        report = json.loads(file.read_text()) if file.exists() else {"error": done.stderr.strip().splitlines()[-1:]}
    return {"command": " ".join(("python", *arguments)), **report}


def table(rows: Mapping[str, Mapping]) -> str:
    """Returns the rows in Markdown, in the order of `commands`."""
    lines = [
        "| | slice | parameters | optimizer | peak | of | fits | a unit of work | MFU | largest program |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_line(name, rows[name]) for name in commands() if name in rows),
        "",
        *(f"- {name}: `{rows[name]['command']}`" for name in commands() if name in rows),
    ]
    return "\n".join(lines)


def _line(name: str, row: Mapping) -> str:
    if "error" in row:
        return f"| {name} | | | | | | {row['error']} | | | |"
    (stage,) = row["stages"]
    largest = max(stage["programs"], key=lambda program: program["peak_bytes"])
    sizes = [f"{largest[part] / 2**30:.1f}" for part in ("parameter_bytes", "optimizer_bytes")]
    peak = f"more than {row['chip']['memory_bytes'] / 2**30:.1f}" if "error" in largest else _gib(stage["peak_bytes"])
    seconds = f"{stage['unit']}: {stage['unit_seconds']:.3g} s" if stage["unit_seconds"] else ""
    mfu = f"{stage['unit_mfu']:.0%}" if stage["unit_mfu"] else ""
    fits = "yes" if stage["fits"] else "**no**"
    memory = f"{_gib(row['chip']['memory_bytes'])} GiB"
    cells = (name, f"{row['topology']}, {row['devices']} chips", *sizes, peak, memory, fits, seconds, mfu)
    return f"| {' | '.join(cells)} | {largest['program']} |"


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f}"


def write(rows: Mapping[str, Mapping]) -> None:
    """Writes the table into the page, between its two markers."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{after}")


def main() -> None:
    """Measures the missing rows and writes the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="", help="only rows whose name contains one of these, separated by commas")
    parser.add_argument("--again", action="store_true", help="also measure rows again that are there")
    chosen = parser.parse_args()
    rows = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for name, arguments in commands().items():
        wanted = any(part in name for part in chosen.rows.split(","))
        same = rows.get(name, {}).get("command") == " ".join(("python", *arguments))
        if wanted and (chosen.again or not same or "error" in rows[name]):
            print(f"{name}: python {' '.join(arguments)}", flush=True)
            rows[name] = measure(arguments)
            KEPT.write_text(json.dumps(rows, indent=1) + "\n")
            write(rows)
    write(rows)


if __name__ == "__main__":
    main()
