"""An experiment of one stage, for tests of what goes wrong (harmed_stage.py, or harmed_sampling.py)."""

import dataclasses

from ml_collections import ConfigDict

from tests.smallest import smallest_model


def get_config():
    """Twelve steps of a tiny model over all devices, a checkpoint after every third; or 40 answers, portions of 8."""
    config = ConfigDict()
    config.update({"experiment": "harmed", "scale": "tiny", "seed": 0, "data": {"root": ""}})
    config.compilation_cache = "compiled"
    config.mesh = {"data": 2, "fsdp": 4, "tensor": 1}
    config.model = dataclasses.asdict(smallest_model(dim=32))
    config.training = {
        "run": "tests.harmed_stage",
        "steps": 12,
        "length": 32,
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "warmup_fraction": 0.0,
        "final_learning_rate_fraction": 0.1,
        "optimizer": {"b1": 0.9, "b2": 0.95, "eps": 1e-5, "weight_decay": 0.1, "clip": 1.0},
        "accumulation": 1,
        "save_every": 3,
        "log_every": 1,
    }
    config.sampling = {"run": "tests.harmed_sampling", "prompts": 40, "shard_size": 8}
    config.stages = ("training",)
    return config
