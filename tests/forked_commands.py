"""Runs `python -m <module>` in forks of one process with all imports, which take longer than most commands.

A fork starts JAX's backend itself, reads its own flags and ends as a program does; only the imports are shared.
"""

import atexit
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]

# Reads a command a line and answers with its exit code. What it imports starts no thread and no backend.
SERVER = """
import json, os, runpy, signal, sys, warnings
import llama2_jax.dry_run, llama2_jax.loading, llama2_jax.print_config, llama2_jax.rehearsal
import ml_collections.config_flags, tqdm
warnings.filterwarnings("ignore", "os.fork")

def run(command):
    signal.alarm(300)
    os.chdir(command["cwd"])
    os.environ.clear()
    os.environ.update(command["environment"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "output"), (2, "errors")):
        os.dup2(os.open(command[name], os.O_WRONLY | os.O_CREAT), number)
    sys.path.insert(0, command["cwd"])
    sys.argv = [command["module"], *command["flags"]]
    runpy.run_module(command["module"], run_name="__main__", alter_sys=True)

for line in sys.stdin:
    child = os.fork()
    if not child:
        run(json.loads(line))
        sys.exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@functools.cache
def _server() -> subprocess.Popen:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    atexit.register(server.kill)
    return server


def run_module(module: str, *flags: str, cwd: pathlib.Path = ROOT) -> subprocess.CompletedProcess:
    """Returns the exit code and the outputs of `python -m <module> <flags>`, run in `cwd` without input."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: os.path.join(folder, name) for name in ("output", "errors")}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        command = {"module": module, "flags": flags, "cwd": str(cwd), "environment": environment, **paths}
        server = _server()
        server.stdin.write(json.dumps(command) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        output, errors = (pathlib.Path(paths[name]).read_text() for name in ("output", "errors"))
    return subprocess.CompletedProcess((module, *flags), code, output, errors)
