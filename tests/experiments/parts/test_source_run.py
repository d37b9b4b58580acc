"""Experiments on a finished run: their stages fit together, and what they take is there under its own name."""

import pytest

from experiments import bag_ablation, reward_ablation, reward_scaling, rlhf_v5, safety_scaling
from experiments.parts.choice import DATA
from experiments.parts.scales import SCALES
from experiments.parts.stages import ROLES
from llama2_jax import recipe
from llama2_jax.data.counts import most_records

on_a_run = pytest.mark.parametrize(
    "experiment",
    [bag_ablation, reward_ablation, reward_scaling, safety_scaling],
    ids=lambda module: module.__name__.split(".")[-1],
)


@on_a_run
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("scale", SCALES)
def test_stages_fit_together_and_no_part_of_one_that_does_not_run_is_left(experiment, scale, data):
    config = experiment.get_config(f"{scale},{data}").copy_and_resolve_references()
    recipe.validate(config)
    for name in config.stages:
        recipe.check_stage(config, name, most_records)
    assert {config[stage].role for stage in config.stages} <= set(ROLES)
    parts = {name for name in config if "run" in (config[name] if hasattr(config[name], "keys") else ())}
    assert parts == set(config.stages)


@on_a_run
@pytest.mark.parametrize("argument", ["tiny", "tiny,real", "13b"])
def test_what_is_imported_is_of_one_run_and_called_as_there(experiment, argument):
    config, source = experiment.get_config(argument), rlhf_v5.get_config(argument)
    config.source_run = "/runs/mine"
    imported = [name for name in config.stages if config[name].role == "imported" or name == "tokenizer"]
    assert imported[0] == "tokenizer" and len(imported) > 2
    assert set(config.stages) & set(source.stages) == {*imported, "evaluation", "report"} & set(config.stages)
    for name in imported:
        assert config[name].folder == f"/runs/mine/{name}"
        assert "records_of" not in config[name] or config[name].records_of == source[name].role
