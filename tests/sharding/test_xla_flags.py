import importlib.metadata
import importlib.util
import os
import subprocess
import sys

import pytest

from llama2_jax.sharding import xla_flags
from llama2_jax.sharding.xla_flags import available_platforms, environment

JAXLIB = importlib.metadata.version("jaxlib")

# Starts the backend in a child process for each value, since names that the backend does not know end the process. The
# program's main is imported first, since flags that are set after that must still take effect. Some TPU flags are only
# refused when a program is compiled, so one is, with weights that are gathered in a loop.
STARTS = """
import os, sys
import llama2_jax.main
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

def compile_for_tpu():
    from jax.experimental import topologies
    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5p:2x2x1").devices
    split = NamedSharding(Mesh(np.array(devices).reshape(-1), ("fsdp",)), PartitionSpec(None, "fsdp"))
    weights = jax.ShapeDtypeStruct((4, 1024, 1024), jnp.bfloat16, sharding=split)
    layer = lambda x, matrix: (x @ matrix, None)
    loss = lambda weights: jnp.sum(jax.lax.scan(layer, jnp.ones((64, 1024), jnp.bfloat16), weights)[0])
    jax.jit(jax.grad(loss), out_shardings=split).lower(weights).compile()

def start(variable, value):
    child = os.fork()
    if not child:
        os.environ[variable] = value
        try:
            compile_for_tpu() if variable == "LIBTPU_INIT_ARGS" else jax.devices()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0

print([start(sys.argv[1], value) for value in sys.argv[2:]])
"""


def starts(variable, *values):
    """Whether JAX starts with the variable set to each value, all in one process, as its own start takes seconds."""
    variables = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")}
    done = subprocess.run(
        [sys.executable, "-c", STARTS, variable, *values],
        env=variables | {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.slow
def test_this_jaxlib_knows_every_flag_of_cpu_and_gpu():
    flags = environment("gpu", JAXLIB, environment("cpu", JAXLIB, {}))["XLA_FLAGS"]
    assert "--xla_cpu_collective" in flags and "--xla_gpu" in flags
    assert starts("XLA_FLAGS", flags, f"{flags} --xla_gpu_made_up=true") == "[True, False]"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install libtpu")
def test_this_libtpu_takes_every_tpu_flag():
    flags = environment("tpu", JAXLIB, {})["LIBTPU_INIT_ARGS"]
    # The last one is known, but not for this generation.
    wrong = (f"{flags} --{name}=true" for name in ("made_up", "xla_tpu_enable_async_collective_fusion_fuse_all_gather"))
    assert starts("LIBTPU_INIT_ARGS", flags, *wrong) == "[True, False, False]"


def names(flags):
    return [flag.split("=")[0] for flag in flags.split()]


def test_flags_follow_the_version():
    older, newer = (names(environment("gpu", version, {})["XLA_FLAGS"]) for version in ("0.10.2", "0.12.0.1"))
    assert "--xla_gpu_enable_pipelined_all_gather" in older and "--xla_gpu_pipeline_all_gather" not in older
    assert "--xla_gpu_pipeline_all_gather" in newer and "--xla_gpu_enable_pipelined_all_gather" not in newer
    assert len(set(newer)) == len(newer) == len(older)


def test_flags_that_the_user_has_set_are_kept():
    mine = "--xla_gpu_enable_triton_gemm=true --xla_dump_to=dump"
    added = environment("gpu", JAXLIB, {"XLA_FLAGS": mine, "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5"})
    assert added["XLA_FLAGS"].endswith(f" {mine}")
    assert names(added["XLA_FLAGS"]).count("--xla_gpu_enable_triton_gemm") == 1
    assert set(added) == {"XLA_FLAGS"}, "JAX refuses two memory fractions"
    assert environment("gpu", JAXLIB, {"XLA_FLAGS": "flags.txt"}) == {"XLA_CLIENT_MEM_FRACTION": "0.9"}
    assert environment("tpu", JAXLIB, {"LIBTPU_INIT_ARGS": added["XLA_FLAGS"]}).keys() == {"LIBTPU_INIT_ARGS"}


def test_flags_are_set_for_the_platforms_that_are_installed(monkeypatch):
    def installed(*packages):
        monkeypatch.setattr(
            xla_flags.importlib.util, "find_spec", lambda name: object() if name in packages else None
        )  # fmt: skip

    installed("jaxlib")
    assert available_platforms({}) == ["cpu"]
    installed("jaxlib", "jax_cuda13_plugin", "libtpu")
    assert available_platforms({}) == available_platforms({"JAX_PLATFORMS": "cuda,cpu"}) == ["cpu", "gpu", "tpu"]
    assert available_platforms({"JAX_PLATFORMS": "cpu"}) == ["cpu", "tpu"], "a TPU can be compiled for from a CPU"


def test_setting_changes_the_environment_once(monkeypatch):
    monkeypatch.setattr(xla_flags, "available_platforms", lambda variables: ["cpu", "gpu"])
    for name in ("XLA_FLAGS", *xla_flags.MEMORY_FRACTION_NAMES):
        # Set first, so that monkeypatch removes it at the end.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    added = xla_flags.set_xla_flags()
    assert os.environ["XLA_FLAGS"] == added["XLA_FLAGS"]
    assert "--xla_cpu" in added["XLA_FLAGS"] and "--xla_gpu" in added["XLA_FLAGS"]
    assert xla_flags.set_xla_flags() == {"XLA_FLAGS": added["XLA_FLAGS"]}, "a second time nothing is added"


def test_a_platform_without_a_table_is_refused():
    with pytest.raises(ValueError, match="no XLA flags for platform 'rocm'; there are for cpu, gpu, tpu"):
        environment("rocm", JAXLIB, {})
