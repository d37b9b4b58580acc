"""Imitation: versions that differ in the teacher's answers alone."""

import pytest

from experiments import imitation, rlhf_v5
from llama2_jax import recipe


@pytest.mark.parametrize("argument", ["tiny", "tiny,real", "small", "13b"])
def test_everything_else_is_imported_from_one_run(argument):
    config, source = imitation.get_config(argument), rlhf_v5.get_config(argument)
    config.source_run = "/runs/mine"
    recipe.validate(config)
    imported = [name for name in config.stages if config[name].role == "imported"]
    assert imported == ["pretrain"] and "pretrain" in source.stages
    parts = [config[name].copy_and_resolve_references().to_dict() for name, _ in config.versions]
    sources = [part.pop("sources") for part in parts]
    assert all(part == parts[0] for part in parts)
    assert all(one != other for index, one in enumerate(sources) for other in sources[:index])


def test_the_settings_of_the_false_promise():
    found = imitation.get_config("13b").broad_5_percent.finetune
    assert (found.batch_size, found.length, found.epochs, found.warmup_steps) == (32, 2048, 1, 1000)
