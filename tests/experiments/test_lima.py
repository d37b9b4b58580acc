"""LIMA's settings, and versions that differ in their examples alone."""

import pytest

from experiments import lima, rlhf_v5
from experiments.parts.choice import DATA
from experiments.parts.scales import SCALES
from experiments.parts.stages import ROLES, stages_with_role
from llama2_jax import recipe
from llama2_jax.data.counts import most_records
from llama2_jax.data.source import as_source
from llama2_jax.data.sources import load_function, read
from llama2_jax.pipeline.model_training import learning_rate


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("scale", SCALES)
def test_stages_fit_together(scale, data):
    config = lima.get_config(f"{scale},{data}").copy_and_resolve_references()
    for name in config.stages:
        recipe.check_stage(config, name, most_records)
    recipe.validate(config)
    assert {config[stage].role for stage in config.stages} <= set(ROLES)
    assert callable(load_function(config.lima.judge.function)) and callable(
        load_function(config.evaluation.judge.function)
    )
    assert (
        config.evaluation.versions == config.evaluation.inputs.models == stages_with_role(config, "checkpoint_choice")
    )


@pytest.mark.parametrize(("scale", "batch_size", "dropout"), [("7b", 24, 0.2), ("13b", 24, 0.2), ("70b", 12, 0.3)])
def test_the_paper_s_settings(scale, batch_size, dropout):
    """Section 3: AdamW with 0.9, 0.95 and 0.1; from 1e-5 to 1e-6 in a straight line, 15 epochs, 2,048 tokens."""
    config = lima.get_config(scale).copy_and_resolve_references()
    settings = config.lima_training.finetune
    rate = learning_rate(settings, 480)
    assert (rate(0), rate(479)) == pytest.approx((1e-5, 1e-6)) and rate(240) == pytest.approx(5.49e-6, rel=1e-2)
    assert (settings.optimizer.b1, settings.optimizer.b2, settings.optimizer.weight_decay) == (0.9, 0.95, 0.1)
    assert (settings.epochs, settings.length, settings.batch_size) == (15, 2048, batch_size)
    # 32 examples of 750 tokens a batch, and 64 for smaller models.
    assert settings.batch_size * 2048 / 750 == pytest.approx(64 if scale != "70b" else 32, rel=0.05)
    assert (settings.residual_dropout, settings.too_long, settings.kept_epochs) == (dropout, "truncate_right", (1, 15))
    assert config.lima.epochs == (5, 10)
    assert (
        (config.lima.temperature, config.lima.top_p)
        == (config.evaluation.temperature, config.evaluation.top_p)
        == (0.7, 0.9)
    )
    assert config.chat_tokenizer.chat_format == "lima"


@pytest.mark.parametrize("argument", ["tiny", "7b"])
def test_versions_differ_in_their_examples_alone(argument):
    config = lima.get_config(argument).copy_and_resolve_references()
    trainings = {name: config[name].to_dict() for name in stages_with_role(config, "finetuning")}
    examples = [part.pop("sources") for part in trainings.values()]
    assert all(one != other for number, one in enumerate(examples) for other in examples[:number])
    for part in trainings.values():
        part["finetune"].pop("kept_epochs")
    first, *others = trainings.values()
    assert others and all(other == first for other in others)
    choices = [config[name].to_dict() for name in stages_with_role(config, "checkpoint_choice")]
    for one in choices:
        one["inputs"].pop("trained")
    assert all(one == choices[0] for one in choices)


@pytest.mark.parametrize("argument", ["tiny", "7b"])
def test_everything_else_is_imported_from_one_run(argument):
    config, source = lima.get_config(argument), rlhf_v5.get_config(argument)
    config.source_run = "/runs/mine"
    imported = [name for name in config.stages if config[name].role == "imported"]
    assert [config[name].folder for name in imported] == [f"/runs/mine/{name}" for name in imported]
    assert set(imported) <= set(source.stages) and "pretrain" in imported
    assert config.tokenizer.folder == config.chat_tokenizer.folder == "/runs/mine/tokenizer"


def test_the_miniature_s_examples_are_nested_and_no_development_question_is_trained_on():
    config = lima.get_config("tiny")
    read_of = {
        name: read(config[f"{name}_training"].sources.examples, "", seed=0) for name in config.evaluation.versions
    }
    assert read_of["lima"][: len(read_of["lima_quarter"])] == read_of["lima_quarter"]
    assert read_of["lima_fourfold"][: len(read_of["lima"])] == read_of["lima"]
    assert len(read_of["unfiltered"]) == 4 * len(read_of["lima"])
    trained = {message["content"] for rows in read_of.values() for row in rows for message in row["messages"]}
    development = read(config.lima.development.examples, "", seed=0)
    assert len(development) == 50 and not {row["messages"][0]["content"] for row in development} & trained


def test_real_examples_and_those_that_choose_are_different_parts():
    config = lima.get_config("small")
    parts = [as_source(one).part for one in (config.lima_training.sources.lima, config.lima.development.lima)]
    assert parts[0][1] == parts[1][0]
    quarter = as_source(config.lima_quarter_training.sources.lima).part
    assert quarter[0] == parts[0][0] and quarter[1] == pytest.approx(parts[0][1] / 4)
    assert config.evaluation.inputs.judge_tokenizer == config.lima.inputs.judge_tokenizer == "tokenizer"
