import logging
import os
import subprocess
import sys

import pytest
from jax._src import xla_bridge

from llama2_jax.sharding.machine import hide_absent_platforms, keep_freed_memory

PROGRAM = """
import resource, sys
from llama2_jax.sharding.machine import keep_freed_memory
done = sys.argv[1] == "keep" and keep_freed_memory()
import jax, jax.numpy as jnp
up, down = jnp.ones((128, 352)), jnp.ones((352, 128))
f = jax.jit(jax.grad(lambda x: jnp.sum(((jax.nn.silu(x @ up) * (x @ up)) @ down) ** 2)))
x = jnp.ones((8192, 128))
for _ in range(20):  # the heap grows over the first executions, until its gaps suffice
    f(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    f(x).block_until_ready()
print(done, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc only")
def test_kept_memory_has_no_page_faults_again():
    def page_faults(how):
        run = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
        done, faults = run.stdout.split()
        return done == "True", int(faults)

    done, kept = page_faults("keep")
    if not done:
        pytest.skip("the C library is not glibc")
    assert kept < page_faults("return")[1] / 4


def test_platforms_that_are_not_there_are_not_logged(monkeypatch):
    monkeypatch.setattr(xla_bridge.logger, "level", logging.NOTSET)
    monkeypatch.setattr(xla_bridge.logger, "_cache", {})
    hide_absent_platforms()
    assert not xla_bridge.logger.isEnabledFor(logging.INFO) and xla_bridge.logger.isEnabledFor(logging.WARNING)


def test_returns_whether_it_was_done():
    # In a separate process: the setting would change the memory of all other tests.
    run = [sys.executable, "-c", "from llama2_jax.sharding import machine; print(machine.keep_freed_memory())"]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
    assert out in ("True", "False")
    assert callable(keep_freed_memory)


@pytest.mark.slow
def test_a_second_process_finds_the_compiled_programs(tmp_path):
    program = (
        "import sys, jax, jax.numpy as jnp\n"
        "from llama2_jax.sharding.machine import enable_compilation_cache\n"
        "enable_compilation_cache(sys.argv[1])\n"
        "def f(x):\n"
        "    for _ in range(300):\n"
        "        x = jnp.sin(x @ x) + jnp.cumsum(x, axis=0)\n"
        "    return x\n"
        "jax.jit(f)(jnp.ones((8, 8)))  # takes longer to compile than the minimum for the cache\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    written = set(os.listdir(tmp_path))
    assert any(name.startswith("jit_f") for name in written)
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    assert {name for name in os.listdir(tmp_path) if not name.endswith("-atime")} == {
        name for name in written if not name.endswith("-atime")
    }
