"""What an experiment takes from a finished run: its models, and what its stages wrote for models to learn from."""

from ml_collections import ConfigDict, FieldReference

from experiments.parts.stages import add_stage


def add_model_import(config: ConfigDict, run: FieldReference, name: str, role: str, **fields) -> None:
    """Adds the import of a model, or a tokenizer, under the name and with the role that it has in its run.

    Args:
      config: the experiment so far, changed in place.
      run: refers to the field with the run's workdir.
      name: of the stage that made it.
      role: that stage's.
      fields: more of the stage's part, such as its inputs.
    """
    folder = run + f"/{name}"
    add_stage(config, name, {"run": "llama2_jax.stages.imported", "role": role, "folder": folder, **fields})


def add_records_import(config: ConfigDict, run: FieldReference, stage: str, role: str, name: str = "") -> str:
    """Adds the import of what a stage of a run, of a role, wrote; returns its name, which is the stage's by default."""
    name = name or stage
    add_stage(config, name, {
        "run": "llama2_jax.stages.imported_records",
        "role": "imported",
        "inputs": {"tokenizer": "tokenizer"},
        "folder": run + f"/{stage}",
        "records_of": role,
    })  # fmt: skip
    return name
