"""Tests run on the CPU with 8 emulated devices, on whatever machine they are started.

The few that can run on an accelerator do so where TEST_PLATFORMS asks for it.
"""

import os

os.environ["JAX_PLATFORMS"] = os.environ.get("TEST_PLATFORMS", "cpu")

import jax

jax.config.update("jax_num_cpu_devices", 8)
