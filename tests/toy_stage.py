"""A stage for tests of the recipe: counts how often it ran, and fails where its config says so."""

from llama2_jax.pipeline.resumable import map_resumable
from llama2_jax.pipeline.stage_files import read_json, write_json


def run(config, inputs, runtime):
    counter = runtime.folder / "runs.json"
    runs = read_json(counter)["runs"] + 1 if counter.exists() else 1
    write_json(counter, {"runs": runs})
    kept = map_resumable("kept", 1, lambda *_: [{"made_in_run": runs}], runtime) if config.get("resumable") else [{}]
    if runs <= config.get("failures", 0):
        raise RuntimeError("cut off")
    return {
        "value": config.value,
        "inputs": {role: str(folder) for role, folder in inputs.items()},
        "seed": runtime.seed,
        **kept[0],
    }
