"""The safety sets on the models of a run, and on a checkpoint."""

import json

import pytest

from experiments import safety_sets
from experiments.parts.choice import DATA
from experiments.parts.scales import SCALES
from experiments.parts.stages import ROLES
from llama2_jax import recipe
from llama2_jax.data.counts import most_records
from llama2_jax.data.sources import load_function, read
from llama2_jax.evaluation.refusals import LABELS


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("scale", SCALES)
def test_stages_fit_together(scale, data):
    config = safety_sets.get_config(f"{scale},{data}").copy_and_resolve_references()
    for name in config.stages:
        recipe.check_stage(config, name, most_records)
    recipe.validate(config)
    assert {config[stage].role for stage in config.stages} <= set(ROLES)
    assert callable(load_function(config.safety_sets.borderline.classifier.function))


def test_the_paper_s_sampling_and_groups_and_all_of_its_prompts():
    config = safety_sets.get_config("70b").safety_sets
    assert (config.temperature, config.top_p, config.chat) == (0.1, 0.9, True)
    assert len(set(config.toxigen.groups)) == 13
    # Its smallest group that stayed has 59 prompts, and the two that did not 12 and 29.
    assert 29 < config.bold.fewest_prompts <= 59
    assert config.bold.prompts_per_group == config.toxigen.prompts_per_group == config.truthfulqa.prompts_per_group == 0


def test_a_judge_that_is_named_is_one_field_s_alone():
    config = safety_sets.get_config().safety_sets
    config.truthfulqa.truth.function = "a.b"
    config.toxigen.classifier.arguments = {"model": "c"}
    assert config.truthfulqa.informative.function == config.toxigen.classifier.function == ""
    assert config.truthfulqa.truth.arguments.to_dict() == config.borderline.classifier.arguments.to_dict() == {}


def test_sets_are_optional_in_the_miniature_alone():
    for data, optional in (("miniature", True), ("real", False)):
        config = safety_sets.get_config(f"tiny,{data}").safety_sets
        assert {config[name].optional for name in ("truthfulqa", "toxigen", "bold")} == {optional}


def test_the_miniature_s_borderline_prompts_are_harmless_and_their_labels_known():
    part = safety_sets.get_config().safety_sets.borderline
    rows = read(part.prompts.prompts, "", seed=0, kind="prompts")
    assert len({row["messages"][0]["content"] for row in rows}) > 20 and not any(row["safety"] for row in rows)
    assert {row["category"] for row in rows} == {"borderline"}
    labels = {row["label"] for row in read(part.labelled.vendor, "", seed=0, kind="samples")}
    assert labels < LABELS.keys() and len(labels) == 2


def test_real_labels_are_read_and_the_half_that_the_patterns_were_written_for_is_not(tmp_path):
    header = "id,type,prompt,completion,annotation_1,annotation_2,agreement,final_label\n"
    row = "v2-{0},kind,How to end process {0}?,Press q.,x,x,TRUE,1_full_compliance\n"
    folder = tmp_path / "safety/xstest"
    folder.mkdir(parents=True)
    (folder / "xstest_v2_completions_a.csv").write_text(header + "".join(row.format(number) for number in range(100)))
    source = safety_sets.get_config("small").safety_sets.borderline.labelled.xstest.to_dict()
    source["path"] = source["path"].removesuffix(".gz")
    rows = read(source, tmp_path, seed=0, kind="samples")
    assert 30 < len(rows) < 70 and {row["label"] for row in rows} == {"1_full_compliance"}
    assert {row["response"] for row in rows} == {"Press q."}


def test_a_checkpoint_is_imported_with_its_tokenizer():
    config = safety_sets.of_checkpoint("7b", "/models/mine", chat=False)
    assert list(config.stages) == ["tokenizer", "checkpoint", "safety_sets", "report"]
    assert config.tokenizer.folder == config.checkpoint.folder == "/models/mine"
    assert config.safety_sets.chat is False and list(config.safety_sets.versions) == ["checkpoint"]
    recipe.validate(config.copy_and_resolve_references())
    json.dumps(config.safety_sets.copy_and_resolve_references().to_dict())
