"""The smaller models learn from the largest one's best samples, and nothing is sampled with them before PPO."""

import pytest

from experiments import distillation, rlhf_v5
from experiments.parts.choice import DATA
from experiments.parts.scales import SCALES
from experiments.parts.stages import ROLES, stages_with_role
from llama2_jax import recipe
from llama2_jax.data.counts import most_records
from llama2_jax.stages.imported_records import RECORDS

ROUNDS = range(1, 6)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("scale", SCALES)
def test_stages_fit_together(scale, data):
    config = distillation.get_config(f"{scale},{data}")
    recipe.validate(config)
    for name in config.stages:
        recipe.check_stage(config.copy_and_resolve_references(), name, most_records)
    assert {config[stage].role for stage in config.stages} <= set(ROLES)
    assert not [name for role in ("annotation", "rejection_sampling") for name in stages_with_role(config, role)]


@pytest.mark.parametrize("scale", ["7b", "13b", "34b"])
def test_the_papers_smaller_sizes_learn_from_70b(scale):
    config, largest = distillation.get_config(scale), rlhf_v5.get_config("70b")
    assert config.teacher == "runs/rlhf_v5-70b" and config.model.layers < largest.model.layers
    for name in stages_with_role(config, "imported"):
        stage = config[name].folder.rpartition("/")[2]
        assert config[name].folder == f"runs/rlhf_v5-70b/{stage}"
        assert largest[stage].role == config[name].records_of and config[name].records_of in RECORDS


@pytest.mark.parametrize("scale", ["tiny", "13b"])
def test_a_student_is_fine_tuned_in_each_round_on_what_the_teacher_was(scale):
    config, teachers = distillation.get_config(scale), rlhf_v5.get_config(scale)
    for number in ROUNDS:
        student, teacher = config[f"rlhf_v{number}_distillation"], teachers[f"rlhf_v{number}_rejection_sampling"]
        assert student.inputs.bags == (f"teacher_rlhf_v{number}_rejection_sampling",)
        assert student.inputs.dialogues == tuple(f"teacher_{name}" for name in teacher.inputs.dialogues)
        assert student.inputs.start == teacher.inputs.start
        assert student.finetune.to_dict() == teacher.finetune.to_dict()
        assert student.sources.to_dict() == teacher.sources.to_dict()


def test_the_reward_models_learn_from_all_comparisons_of_the_teachers_run():
    config = distillation.get_config("7b")
    for kind in ("helpfulness", "safety"):
        inputs = config[f"rlhf_v5_{kind}_reward"].inputs
        assert inputs.annotations == tuple(f"teacher_rlhf_v{number}_annotation" for number in ROUNDS)
        assert inputs.start == "rlhf_v4_distillation"
    assert config.rlhf_v5_ppo.inputs.policy == "rlhf_v5_distillation"


def test_what_the_teacher_lacks_is_found_before_anything_is_trained():
    config = distillation.get_config("7b")
    imports = ("tokenizer", *stages_with_role(config, "imported"))
    assert config.stages[: len(imports)] == imports


def test_another_teacher_is_one_flag():
    config = distillation.get_config()
    config.teacher = "/runs/mine"
    assert config.tokenizer.folder == "/runs/mine/tokenizer"
    assert {config[name].folder.rpartition("/")[0] for name in stages_with_role(config, "imported")} == {"/runs/mine"}


@pytest.mark.parametrize("experiment", [distillation, rlhf_v5])
@pytest.mark.parametrize(
    "size", [{"layers": 2}, {"layers": 4, "dim": 64, "heads": 2, "kv_heads": 1, "ffn_hidden": 192}], ids=str
)
def test_a_student_of_fewer_layers_or_half_the_width_fits_and_so_does_its_own_sampling(experiment, size):
    config = experiment.get_config("tiny")
    config.model.update(size)
    recipe.plan(config)


def test_the_miniatures_student_is_smaller_than_its_teacher():
    config, teacher = distillation.get_config("tiny"), rlhf_v5.get_config("tiny")
    assert config.teacher == "runs/rlhf_v5-tiny" and config.model.layers == teacher.model.layers // 2
    assert distillation.get_config("tiny,real").teacher == "runs/rlhf_v5-tiny-real"
