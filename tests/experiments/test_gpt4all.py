"""GPT4All: the same dialogues, learnt as a whole and with adapters; the same adapters, released in few bits."""

import pytest

from experiments import gpt4all, rlhf_v5
from llama2_jax import recipe


@pytest.mark.parametrize("argument", ["tiny", "tiny,real", "small", "7b"])
def test_everything_else_is_imported_from_one_run(argument):
    config, source = gpt4all.get_config(argument), rlhf_v5.get_config(argument)
    config.source_run = "/runs/mine"
    recipe.validate(config)
    for name in config.stages:
        if config[name].role == "imported":
            assert config[name].folder == f"/runs/mine/{name}" and name in source.stages
    assert config.curated.sources == source.sft.sources
    assert config.evaluation.versions == config.perplexity.versions == (*gpt4all.TRAINED, *gpt4all.RELEASED)


def test_versions_differ_in_the_adapters_and_their_rate_alone():
    config = gpt4all.get_config()
    parts = {name: config[name].copy_and_resolve_references().to_dict() for name in gpt4all.TRAINED}
    adapters = {name: part["finetune"].pop("adapters") for name, part in parts.items()}
    rates = {name: part["finetune"].pop("learning_rate") for name, part in parts.items()}
    assert parts["full"] == parts["lora"] == parts["qlora"]
    assert (adapters["full"]["rank"], adapters["lora"]["rank"], adapters["qlora"]["rank"]) == (0, 8, 8)
    assert [adapters[name]["quantize"] for name in parts] == ["", "", "int4"]
    assert rates["lora"] == rates["qlora"] == pytest.approx(10 * rates["full"])


def test_releases_are_of_the_adapted_model():
    config = gpt4all.get_config()
    assert {config[name].inputs.model for name in gpt4all.RELEASED} == {"lora"}
    assert [config[name].quantize for name in gpt4all.RELEASED] == ["int8", "int4"]
    assert config.perplexity.clip == 100
