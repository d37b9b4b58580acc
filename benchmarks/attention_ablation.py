"""Multi-head, grouped-query and multi-query attention, pretrained and converted (A.2.1; GQA: Ainslie et al. 2023).

Run: python -m benchmarks.attention_ablation [--seeds 0 1 2] [--workdir runs/attention]
For each seed the miniature is pretrained with as many key and value heads as query heads, with half as many and with
one, the feed-forward layers enlarged so that all have as many parameters. Then the heads of the first are pooled, in
three ways, and each result is trained further for 5 % of the steps (experiments/gqa_uptraining.py); so is the first
itself, for comparison. Prints the held-out losses over the seeds as Markdown, at last the same as JSON. What is
finished is not run again.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.seeds_score import half_width
from llama2_jax.interop.grouped_queries import POOLINGS
from llama2_jax.models.config import PRESETS, ModelConfig
from llama2_jax.paths import expand_home

TINY = PRESETS["tiny"]
KV_HEADS = (TINY.heads, TINY.heads // 2, 1)


def main() -> None:
    """Runs what is missing and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workdir", default="runs/attention")
    arguments = parser.parse_args()
    workdir = pathlib.Path(expand_home(arguments.workdir))
    workdir.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict]] = {}
    for seed in arguments.seeds:
        for name, losses in of_seed(workdir, seed).items():
            found.setdefault(name, []).append(losses)
    print("\n".join(table(found)))
    print(json.dumps(found))


def of_seed(workdir: pathlib.Path, seed: int) -> dict[str, dict[str, float]]:
    """Returns for each model of a seed its losses: "before" uptraining and "after" it, or after pretraining."""
    found = {}
    for kv_heads in KV_HEADS:
        folder = workdir / f"pretrain_{kv_heads}_{seed}"
        sizes = [f"--config.model.kv_heads={kv_heads}", f"--config.model.ffn_hidden={enlarged_ffn(TINY, kv_heads)}"]
        results = run("pretrain", folder, "pretrain", [f"--config.seed={seed}", *sizes])
        found[f"pretrained, {kv_heads} key and value heads"] = {"after": results["held_out_loss"]}
    whole = workdir / f"pretrain_{TINY.heads}_{seed}" / "pretrain"
    for kv_heads in KV_HEADS:
        for pooling in POOLINGS if kv_heads < TINY.heads else POOLINGS[:1]:
            base = workdir / f"{pooling}_{kv_heads}_{seed}"
            convert(whole, base, kv_heads, pooling)
            flags = [f"--config.seed={seed}", f"--config.model.kv_heads={kv_heads}", f"--config.base.folder={base}"]
            results = run("gqa_uptraining", workdir / f"uptrain_{pooling}_{kv_heads}_{seed}", "uptrain", flags)
            name = "trained further as it is" if kv_heads == TINY.heads else f"{kv_heads} heads, {pooling}"
            found[name] = {"before": results["start_held_out_loss"], "after": results["held_out_loss"]}
    return found


def enlarged_ffn(model: ModelConfig, kv_heads: int) -> int:
    """Returns the feed-forward width with which fewer key and value heads leave the number of parameters as it is."""
    saved = 2 * model.dim * (model.heads - kv_heads) * model.head_dim
    return model.ffn_hidden + round(saved / (3 * model.dim))


def run(experiment: str, folder: pathlib.Path, stage: str, flags: Sequence[str]) -> dict:
    """Runs an experiment unless its stage is finished, and returns the stage's results; exits if it fails."""
    record = folder / stage / "stage.json"
    if not record.exists():
        call(["llama2_jax.main", f"--config=experiments/{experiment}.py", f"--workdir={folder}", *flags], folder)
    return json.loads(record.read_text())["results"]


def convert(source: pathlib.Path, target: pathlib.Path, kv_heads: int, pooling: str) -> None:
    """Pools a model's heads unless that is done."""
    if not target.exists():
        pooled = [f"--kv_heads={kv_heads}", f"--kv_pooling={pooling}"]
        call(["llama2_jax.convert", f"--source={source}", f"--target={target}", "--to=orbax", *pooled], target)


def call(command: Sequence[str], folder: pathlib.Path) -> None:
    """Runs a module, with its output beside the folder; exits if it fails."""
    with folder.with_suffix(".log").open("a") as log:
        if subprocess.run([sys.executable, "-m", *command], stdout=log, stderr=subprocess.STDOUT).returncode:
            sys.exit(f"{' '.join(command)} failed; see {log.name}")


def table(found: dict[str, list[dict]]) -> list[str]:
    """Returns the losses as Markdown, the mean over the seeds with the half-width of its 95 % interval."""
    rows = ["| held-out loss, nats a token | before | after |", "|---|---|---|"]
    return rows + [
        f"| {name} | {cell([one.get('before') for one in losses])} | {cell([one['after'] for one in losses])} |"
        for name, losses in found.items()
    ]


def cell(values: Sequence[float | None]) -> str:
    """Returns "mean ± half-width"; the mean alone of one value, "-" where there is none."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    width = half_width(known)
    return f"{statistics.mean(known):.3f}" + ("" if width is None else f" ± {width:.3f}")


if __name__ == "__main__":
    main()
