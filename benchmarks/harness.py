"""Benchmarks of lm-evaluation-harness with our adapter, beside its own Hugging Face backend: one model, the same tasks.

Run: python -m benchmarks.harness --model <folder> --data <folder of benchmarks> [--tasks piqa ...] [--limit 200]

The model, in any format that `llama2_jax.load` reads, is converted to Hugging Face's. The two take turns, each in a
process of its own, both in float32 on the CPU. Ours compiles in the first round and finds its programs in a cache after
it, as every later evaluation on a machine does; the ratio is that of the first round, and that of the fastest of each.
Prints the times and the accuracies of both, the largest difference between log-likelihoods and how many generated
answers differ; the last line is JSON. Needs the extras "benchmarks" and "reference", and the package accelerate.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from llama2_jax.evaluation.benchmark_tasks import tasks

# Five of choices and three that generate.
TASKS = ("piqa", "openbookqa", "arc_easy", "hellaswag", "mmlu_astronomy", "gsm8k", "svamp", "nq_open")
BACKENDS = ("ours", "huggingface")


def main() -> None:
    """Runs both backends in turn and compares them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="a folder with a folder for each benchmark")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--limit", type=int, default=200, help="documents a task")
    parser.add_argument("--max_new_tokens", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=32, help="of the Hugging Face backend")
    parser.add_argument("--chat", action="store_true", help="ask in the chat format, the examples as turns")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--backend", choices=BACKENDS, help="run this one alone and print what it found, as JSON")
    parser.add_argument("--compiled", help="with --backend=ours: the folder of compiled programs")
    arguments = parser.parse_args()
    if arguments.backend:
        print(json.dumps(run(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        converted = pathlib.Path(folder) / "huggingface"
        convert = ["llama2_jax.convert", f"--source={arguments.model}", f"--target={converted}", "--to=huggingface"]
        subprocess.run([sys.executable, "-m", *convert], check=True, stdout=sys.stderr)
        models = {"ours": arguments.model, "huggingface": str(converted)}
        found: dict[str, list[dict]] = {backend: [] for backend in BACKENDS}
        for round_ in range(arguments.rounds):
            for backend in BACKENDS if round_ % 2 == 0 else BACKENDS[::-1]:
                found[backend].append(_in_a_process(backend, models[backend], pathlib.Path(folder) / "compiled"))
    print_comparison(found)


def _in_a_process(backend: str, model: str, compiled: pathlib.Path) -> dict:
    # The last of two equal flags counts.
    command = [sys.executable, "-m", "benchmarks.harness", *sys.argv[1:], "--backend", backend, "--model", model]
    command += ["--compiled", str(compiled)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.strip().splitlines()[-1])


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Evaluates with one backend; returns seconds, metrics by task, and the answers to every request."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    started = time.perf_counter()
    model = _ours(arguments) if arguments.backend == "ours" else _huggingface(arguments)
    loaded = time.perf_counter()
    descriptions = tasks(arguments.data, arguments.tasks, max_new_tokens=arguments.max_new_tokens)
    results = lm_eval.simple_evaluate(
        model=model,
        tasks=descriptions,
        limit=arguments.limit,
        bootstrap_iters=0,
        log_samples=True,
        apply_chat_template=arguments.chat,
        fewshot_as_multiturn=arguments.chat,
        task_manager=TaskManager(include_defaults=False),
    )
    return {
        "seconds": time.perf_counter() - loaded,
        "load_seconds": loaded - started,
        "metrics": {
            task: {name: value for name, value in of_task.items() if isinstance(value, float)}
            for task, of_task in results["results"].items()
        },
        "answers": {
            task: [sample["resps"] for sample in sorted(samples, key=lambda sample: sample["doc_id"])]
            for task, samples in results["samples"].items()
        },
    }


def _ours(arguments: argparse.Namespace):
    import llama2_jax
    from llama2_jax.evaluation.harness_model import HarnessModel
    from llama2_jax.sharding.machine import enable_compilation_cache

    if arguments.compiled:
        enable_compilation_cache(arguments.compiled)
    llama = llama2_jax.load(arguments.model)
    return HarnessModel(llama.config, llama.params, llama.tokenizer)


def _huggingface(arguments: argparse.Namespace):
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=arguments.model, device="cpu", dtype="float32", batch_size=arguments.batch_size)


def print_comparison(found: Mapping[str, list[dict]]) -> None:
    """Prints a table of tasks, then the times and their ratio as JSON."""
    ours, other = (found[backend][0] for backend in BACKENDS)
    print("| task | metric | ours | huggingface | answers that differ | largest difference of log-likelihoods |")
    print("|---|---|---|---|---|---|")
    differences = {task: difference(ours["answers"][task], other["answers"][task]) for task in ours["answers"]}
    for task, metrics in ours["metrics"].items():
        differing, largest = differences[task]
        for name, value in metrics.items():
            print(
                f"| {task} | {name} | {value:.4f} | {other['metrics'][task][name]:.4f} | {differing} | {largest:.1e} |"
            )
    seconds = {backend: [round(one["seconds"], 1) for one in found[backend]] for backend in BACKENDS}
    print(
        json.dumps(
            {
                "benchmark": "harness",
                **{f"{backend}_seconds": seconds[backend] for backend in BACKENDS},
                "ratio_first": round(seconds["huggingface"][0] / seconds["ours"][0], 2),
                "ratio": round(min(seconds["huggingface"]) / min(seconds["ours"]), 2),
                "same_metrics": ours["metrics"] == other["metrics"],
                "answers_that_differ": sum(differing for differing, _ in differences.values()),
                "largest_difference": max(largest for _, largest in differences.values()),
            }
        )
    )


def difference(ours: list, other: list) -> tuple[int, float]:
    """Returns how many texts or greedy flags differ, and the largest difference between log-likelihoods."""
    differing, largest = 0, 0.0
    for one, another in zip(_flat(ours), _flat(other), strict=True):
        if isinstance(one, str | bool):
            differing += one != another
        else:
            largest = max(largest, abs(float(one) - float(another)))
    return differing, largest


def _flat(value: Any) -> list:
    return [leaf for part in value for leaf in _flat(part)] if isinstance(value, list | tuple) else [value]


if __name__ == "__main__":
    main()
