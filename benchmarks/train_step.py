"""Compares our training step with transformers' LlamaForCausalLM and fused AdamW, on one machine in alternating runs.

Run: python -m benchmarks.train_step [--sizes S M L] [--rounds 5] [--output runs/train_step.json]
     python -m benchmarks.train_step --quick                       # a smoke run
     python -m benchmarks.train_step --gpu                         # 1.1B parameters, bfloat16, 4096 tokens

Needs torch and transformers (pip install -e ".[reference]"), and a C++ compiler for torch.compile. Each contestant runs
in its own process; in a round each runs once for each size, and a contestant's result is the median over rounds of the
median step of a process. All start from the same weights (written by interop/) and take the same batches, and their
first losses must agree: a step is forward, backward, clipping at a norm of 1 and AdamW with decay of matrices. In
addition the matrix products of a step are timed alone, as if the rest of a step cost nothing.
Prints a Markdown table and whether the claims hold, and writes everything with versions and machine as JSON.

The part for a GPU is written for one NVIDIA GPU of 80 GB or more and has not been run yet: MFU is against the rate of a
large product of bfloat16 matrices on that GPU.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from benchmarks.train_step_sizes import SIZES
from llama2_jax.interop.checkpoint import Checkpoint
from llama2_jax.interop.huggingface_export import write_huggingface
from llama2_jax.models.llama import init_language_model
from llama2_jax.paths import expand_home

# The same as keep_freed_memory of sharding/machine.py, set from outside.
TUNED_MALLOC = {"GLIBC_TUNABLES": f"glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold={2**64 - 1}"}


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A way to train.

    Attributes:
      label: its name in tables.
      command: module and arguments.
      tolerance: the relative tolerance of its first losses; None if it does not compute a whole step.
      environment: variables of its process.
    """

    label: str
    command: tuple[str, ...]
    tolerance: float | None
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


_PEER = "benchmarks.train_step_transformers"
_PRODUCTS = "benchmarks.train_step_products"
_OURS = Contestant("llama2_jax", ("benchmarks.train_step_ours",), 0.0)
# Float32 sums in another order, over two updates. Precision medium and autocast multiply in bfloat16, 2^-9 per number.
FLOAT32, BFLOAT16 = 1e-4, 1e-2
CPU = {
    "eager": Contestant("transformers, eager", (_PEER,), FLOAT32),
    "compiled": Contestant("transformers, torch.compile", (_PEER, "--compile"), FLOAT32),
    "fastest": Contestant(
        'transformers, torch.compile, matmul precision "medium", tuned malloc',
        (_PEER, "--compile", "--precision=medium"), BFLOAT16, TUNED_MALLOC,
    ),
    "ours": _OURS,
    "products": Contestant("our step's matrix products alone", (_PRODUCTS, "--library=xla"), None),
    "products_torch": Contestant("the same in PyTorch", (_PRODUCTS, "--library=pytorch"), None),
}  # fmt: skip
GPU = {
    "eager": Contestant("transformers, eager, SDPA", (_PEER,), BFLOAT16),
    "compiled": Contestant("transformers, torch.compile, SDPA", (_PEER, "--compile"), BFLOAT16),
    "flash": Contestant(
        "transformers, torch.compile, flash attention 2",
        (_PEER, "--compile", "--attention=flash_attention_2"), BFLOAT16,
    ),
    "ours": _OURS,
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the rounds, prints the tables and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["S", "M", "L"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contestants", nargs="+", choices=sorted(CPU | GPU))
    parser.add_argument("--quick", action="store_true", help="one round of the smallest size, without torch.compile")
    parser.add_argument("--gpu", action="store_true", help="the size 1b on a GPU")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/train_step.json"))
    arguments = parser.parse_args(argv)
    sizes, rounds, contestants = arguments.sizes, arguments.rounds, GPU if arguments.gpu else CPU
    chosen = arguments.contestants or list(contestants)
    if arguments.gpu:
        sizes = ["1b"]
        if importlib.util.find_spec("flash_attn") is None and not arguments.contestants:
            chosen.remove("flash")
    if arguments.quick:
        sizes, rounds, chosen = ["quick"], 1, ["eager", "ours"]
    if any("--compile" in contestants[name].command for name in chosen) and not shutil.which("g++"):
        sys.exit("error: torch.compile needs a C++ compiler (g++); install one, or choose --contestants eager ours")
    runs = run_rounds(sizes, rounds, {name: contestants[name] for name in chosen})
    report = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "runs": runs,
        "speeds": {size: speeds(size, runs[size]) for size in sizes},
    }
    if arguments.gpu:
        report["matrix_rate"] = start(("benchmarks.train_step_ours", "--matrix_rate"), {})["flops_per_second"]
    output = pathlib.Path(expand_home(arguments.output))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=2) + "\n")
    print("\n".join([*table(report["speeds"], contestants, report.get("matrix_rate")), "", *claims(report["speeds"])]))


def run_rounds(sizes: Sequence[str], rounds: int, contestants: Mapping[str, Contestant]) -> dict:
    """Returns for each size and contestant the output of its processes, one per round, the contestants in turn.

    Exits if a process fails or the first losses do not agree.
    """
    runs = {size: {name: [] for name in contestants} for size in sizes}
    with tempfile.TemporaryDirectory() as temporary:
        folders = {size: pathlib.Path(temporary) / size for size in sizes}
        for size, folder in folders.items():
            prepare(size, folder)
        for number in range(rounds):
            for size, folder in folders.items():
                for name, contestant in contestants.items():
                    command = (*contestant.command, f"--folder={folder}", f"--size={size}")
                    result = start(command, contestant.environment)
                    runs[size][name].append(result)
                    speed = SIZES[size].tokens / statistics.median(result["seconds"])
                    print(f"round {number + 1}, {size}, {contestant.label}: {speed:,.0f} tokens/s", file=sys.stderr)
                check_losses(size, {name: of[-1]["losses"] for name, of in runs[size].items()}, contestants)
    return runs


def prepare(size_name: str, folder: pathlib.Path) -> None:
    """Writes a folder that transformers and our code can load: fresh weights, and batches of random tokens."""
    size = SIZES[size_name]
    params = jax.device_get(init_language_model(size.model, jax.random.key(0)))

    def read(name: str, layer: int | None = None, index: tuple[slice, ...] | None = None) -> np.ndarray:
        array = params
        for part in name.split("/"):
            array = array[part]
        array = array if layer is None else array[layer]
        return array if index is None else array[index]

    folder.mkdir()
    checkpoint = Checkpoint("orbax", folder, size.model, "language", np.dtype(np.float32), None, read)
    write_huggingface(checkpoint, folder, np.dtype(np.float32))
    tokens = np.random.default_rng(0).integers(0, size.model.vocab_size, (4, size.rows, size.length))
    np.save(folder / "tokens.npy", tokens.astype(np.int32))


def start(command: Sequence[str], environment: Mapping[str, str]) -> dict:
    """Runs a module in its own process and returns the JSON in its last line."""
    process = subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if process.returncode:
        sys.exit(f"error: python -m {' '.join(command)} failed")
    return json.loads(process.stdout.strip().splitlines()[-1])


def check_losses(size: str, losses: Mapping[str, Sequence[float]], contestants: Mapping[str, Contestant]) -> None:
    """Exits if a contestant's first losses are not ours: it would not have computed the same step."""
    if "ours" not in losses:
        return
    for name, found in losses.items():
        tolerance = contestants[name].tolerance
        if tolerance is not None and not np.allclose(found, losses["ours"], rtol=tolerance, atol=0):
            sys.exit(f"error: size {size}: the first losses of {name} are {found}, ours are {losses['ours']}")


def speeds(size: str, runs: Mapping[str, Sequence[Mapping]]) -> dict[str, dict[str, float]]:
    """Returns for each contestant tokens/s (median, lowest, highest over rounds) and FLOP/s."""
    found = {}
    for name, rounds in runs.items():
        by_round = [SIZES[size].tokens / statistics.median(one["seconds"]) for one in rounds]
        median = statistics.median(by_round)
        found[name] = {
            "tokens_per_second": median,
            "lowest": min(by_round),
            "highest": max(by_round),
            "flops_per_second": median * SIZES[size].flops / SIZES[size].tokens,
        }
    return found


def table(
    measured: Mapping[str, Mapping[str, Mapping[str, float]]],
    contestants: Mapping[str, Contestant],
    matrix_rate: float | None = None,
) -> list[str]:
    """Returns Markdown with a row per contestant and size: our ratio to it, and MFU if the machine's rate is known."""
    last = " MFU |" if matrix_rate else ""
    rows = [f"| size | contestant | tokens/s (lowest to highest) | GFLOP/s | ours is |{last}"]
    rows.append("|---|---|---|---|---|" + ("---|" if matrix_rate else ""))
    for size, of in measured.items():
        for name, one in of.items():
            spread = f"{one['tokens_per_second']:,.0f} ({one['lowest']:,.0f} to {one['highest']:,.0f})"
            ratio = f"{of['ours']['tokens_per_second'] / one['tokens_per_second']:.2f} x" if "ours" in of else "-"
            row = f"| {size} | {contestants[name].label} | {spread} | {one['flops_per_second'] / 1e9:,.0f} | {ratio} |"
            rows.append(row + (f" {one['flops_per_second'] / matrix_rate:.1%} |" if matrix_rate else ""))
    return rows


def claims(measured: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Returns the claims about the CPU and whether they hold; none if a contestant is missing."""
    rows = []
    # The setting called the fastest is so for most sizes, but not for all.
    for names, wanted, over, text in (
        (("compiled",), 1.5, statistics.median, "median over sizes of ours / torch.compile at its default precision"),
        (("fastest", "compiled", "eager"), 0.95, min, "lowest over sizes of ours / transformers' fastest in float32"),
    ):
        ratios = [
            of["ours"]["tokens_per_second"] / max(of[name]["tokens_per_second"] for name in names if name in of)
            for of in measured.values()
            if names[0] in of and "ours" in of
        ]
        if ratios:
            verdict = "holds" if over(ratios) >= wanted else "DOES NOT HOLD"
            rows.append(f"{text}: {over(ratios):.2f}, at least {wanted} wanted: {verdict}")
    bounds = [
        of["products"]["tokens_per_second"] / of["compiled"]["tokens_per_second"]
        for of in measured.values()
        if {"products", "compiled"} <= of.keys()
    ]
    if bounds:
        text = "median over sizes of our products alone / torch.compile at its default precision"
        rows.append(f"{text}: {statistics.median(bounds):.2f}, what our step would reach if all else cost nothing")
    return rows


def machine() -> dict[str, object]:
    """Returns processor, cores and system."""
    model = platform.processor()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {"processor": model, "cores": os.cpu_count(), "system": platform.platform()}


def versions() -> dict[str, str]:
    """Returns the versions of everything that a result may depend on."""
    packages = ("jax", "jaxlib", "flax", "optax", "torch", "transformers", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


if __name__ == "__main__":
    main()
