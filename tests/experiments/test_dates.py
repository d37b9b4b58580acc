"""A model with a sense of time, and one that knows as much and has none."""

import pytest

from experiments import dates, rlhf_v5
from experiments.parts.choice import DATA
from experiments.parts.scales import SCALES
from experiments.parts.stages import ROLES
from llama2_jax import recipe
from llama2_jax.data.counts import most_records
from llama2_jax.data.sources import load_function


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("scale", SCALES)
def test_stages_fit_together(scale, data):
    config = dates.get_config(f"{scale},{data}").copy_and_resolve_references()
    for name in config.stages:
        recipe.check_stage(config, name, most_records)
    recipe.validate(config)
    assert {config[stage].role for stage in config.stages} <= set(ROLES)
    assert config.dates.versions == config.dates.inputs.models
    assert all(callable(load_function(config.dates[name].function)) for name in ("right", "judge"))


def test_the_two_differ_in_the_dated_examples_alone():
    config = dates.get_config().copy_and_resolve_references()
    undated, dated = config.undated.to_dict(), config.dated.to_dict()
    examples = dated["sources"].pop("dated")
    assert examples["function"] == "llama2_jax.miniature.dates.dated_examples"
    assert examples["arguments"]["count"] == 1000
    assert undated == dated and undated["inputs"]["start"] == "sft"
    assert config.dates.versions == ("sft", "undated", "dated")


@pytest.mark.parametrize("argument", ["tiny", "7b"])
def test_everything_else_is_imported_from_one_run(argument):
    config, source = dates.get_config(argument), rlhf_v5.get_config(argument)
    config.source_run = "/runs/mine"
    imported = [name for name in config.stages if config[name].role in ("tokenizer", "imported")]
    assert [config[name].folder for name in imported] == [f"/runs/mine/{name}" for name in imported]
    assert set(imported) <= set(source.stages)
    assert config.dates.prompts == source.evaluation.prompts and config.dates.judge == source.evaluation.judge


def test_on_real_files_pretraining_has_the_knowledge():
    config = dates.get_config("7b")
    assert config.dates.versions == ("sft", "dated")
    assert list(config.dated.sources) == ["dated"]
