"""Tests run on the CPU with 8 emulated devices, on whatever machine they are started."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import jax

jax.config.update("jax_num_cpu_devices", 8)
