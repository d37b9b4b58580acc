"""A stage for tests of what goes wrong: trains a tiny model, and does harm to its own process where HARM says so.

HARM is `<what>:<step>:<process>`: when the process takes the batch of the step (in harmed_sampling.py: begins the
portion), it kills, stops (SIGSTOP) or asks (SIGTERM) itself, raises, fills the disk, asks for more memory than there
is, or (kill_in_save) kills itself at the next save, when all its files are written.
"""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np

from llama2_jax.models.llama import LanguageModel, init_language_model, parameter_shardings
from llama2_jax.pipeline.model_training import fit_language_model
from llama2_jax.training import checkpoints


def run(config, inputs, runtime):
    module = LanguageModel(runtime.model)
    shardings = parameter_shardings(module, runtime.mesh)
    params = jax.jit(lambda key: init_language_model(runtime.model, key), out_shardings=shardings)(runtime.key)
    batches = Batches(lambda step: harm(step, runtime.folder))
    params = fit_language_model(config, params, batches, config.steps, runtime)
    return {"processes": jax.process_count(), "norm": float(sum((leaf**2).sum() for leaf in jax.tree.leaves(params)))}


class Batches:
    """Rows of letters, others at each step."""

    def __init__(self, before):
        self.taken, self.before = 0, before

    def __next__(self):
        self.taken += 1
        self.before(self.taken)
        tokens = np.random.default_rng(self.taken).integers(97, 123, (16, 32)).astype(np.int32)
        ones = np.ones_like(tokens)
        positions = ones * np.arange(32, dtype=np.int32)
        return {"tokens": tokens, "positions": positions, "segment_ids": ones, "loss_mask": ones}

    def get_state(self):
        return {"taken": self.taken}

    def set_state(self, state):
        self.taken = state["taken"]


def harm(step, folder):
    """Does to this process what HARM says, if now and here."""
    what, at, process = os.environ.get("HARM", "nothing:0:0").split(":")
    if step != int(at) or jax.process_index() != int(process):
        return
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif what == "ask":
        os.kill(os.getpid(), signal.SIGTERM)
    elif what == "kill_in_save":
        checkpoints.write_manifest = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    elif what == "raise":
        raise OSError(f"process {process} alone fails")
    elif what == "fill":
        _fill(folder)
    elif what == "memory":
        jnp.zeros((1 << 44, 8)).block_until_ready()


def _fill(folder):
    with open(folder / "filler", "wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            pass
