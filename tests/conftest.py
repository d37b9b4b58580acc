"""Tests run on the CPU with 8 emulated devices, on whatever machine they are started.

The few that can run on an accelerator do so where TEST_PLATFORMS asks for it.
"""

import os
import shutil
import subprocess

os.environ["JAX_PLATFORMS"] = os.environ.get("TEST_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture
def small_disk(tmp_path):
    """The folder of a disk of 3 MB."""
    if not shutil.which("mount"):
        pytest.skip("there is no command to mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small disk is not allowed here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
