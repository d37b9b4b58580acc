"""Alpaca: tasks that a teacher writes, and three versions that differ in what they are fine-tuned on alone."""

import pytest

from experiments import alpaca, rlhf_v5
from llama2_jax import recipe

VERSIONS = ("seed_tasks", "alpaca", "demonstrations")


@pytest.mark.parametrize("argument", ["tiny", "tiny,real", "small", "7b", "13b,miniature"])
def test_everything_else_is_imported_from_one_run(argument):
    config, source = alpaca.get_config(argument), rlhf_v5.get_config(argument)
    config.source_run = "/runs/mine"
    recipe.validate(config)
    for name in config.stages:
        if config[name].role == "imported":
            assert config[name].folder == f"/runs/mine/{name}" and name in source.stages
    assert (config.chat_tokenizer.folder, config.chat_tokenizer.chat_format) == ("/runs/mine/tokenizer", "alpaca")
    assert {config[name].inputs.tokenizer for name in ("instructions", *VERSIONS, "evaluation")} == {"chat_tokenizer"}
    assert config.evaluation.versions == VERSIONS


def test_versions_differ_in_what_they_are_fine_tuned_on():
    config = alpaca.get_config()
    parts = [config[name].copy_and_resolve_references().to_dict() for name in VERSIONS]
    sources = [set(part.pop("sources")) for part in parts]
    assert sources == [{"seeds"}, {"seeds"}, {"seeds", "public"}]
    assert [part["inputs"].pop("dialogues") for part in parts] == [(), ("instructions",), ()]
    assert parts[0] == parts[1] == parts[2]
    config.instructions.tasks = 77
    assert config.demonstrations.sources.public.arguments.count == 77, "as many by people as by the teacher"


@pytest.mark.parametrize(("scale", "rate", "epochs"), [("7b", 2e-5, 3), ("13b", 1e-5, 5)])
def test_the_settings_of_alpaca(scale, rate, epochs):
    config = alpaca.get_config(scale).copy_and_resolve_references()
    found = config.alpaca.finetune
    assert (found.batch_size, found.learning_rate, found.epochs, found.length) == (128, rate, epochs, 512)
    assert (found.warmup_fraction, found.final_learning_rate_fraction, found.optimizer.weight_decay) == (0.03, 0, 0)
    part = config.instructions
    assert (part.tasks_shown, part.tasks_per_call, part.tasks, part.most_alike) == (3, 20, 52_000, 0.7)
    assert (part.temperature, part.top_p, part.teacher.arguments.chat.temperature) == (1, 1, 1)
    assert part.seed_tasks.self_instruct.limit == 175


@pytest.mark.parametrize("scale", ["tiny", "7b"])
def test_there_is_one_teacher(scale):
    part = alpaca.get_config(scale).instructions
    assert ("policy" in part.inputs) == (scale == "tiny") == (not part.teacher)


def test_prompts_have_one_turn():
    assert alpaca.get_config().evaluation.prompts.prompts.arguments.multi_turn == 0.0
