"""V4 on the best answers of its round and of all rounds: the two differ in nothing else."""

import pytest

from experiments import bag_ablation, rlhf_v4
from llama2_jax import recipe
from llama2_jax.data.counts import most_records

ARMS = ("rlhf_v4_last_round", "rlhf_v4_all_rounds")


@pytest.mark.parametrize("argument", ["tiny", "tiny,real", "13b"])
def test_only_the_answers_differ_and_all_else_is_the_round_s(argument):
    config, source = (
        one.get_config(argument).copy_and_resolve_references().to_dict() for one in (bag_ablation, rlhf_v4)
    )
    last, all_rounds = (config[name] for name in ARMS)
    answers = ("rlhf_v4_rejection_sampling",)
    assert (last["inputs"].pop("samples"), all_rounds["inputs"].pop("bags")) == (answers, answers)
    assert last == all_rounds
    fourth = source["rlhf_v4_rejection_sampling"]
    assert all(last[field] == fourth[field] for field in ("sources", "finetune"))
    assert all(last["inputs"][role] == fourth["inputs"][role] for role in ("start", "dialogues"))
    assert config["evaluation"]["versions"] == ("sft", "rlhf_v3", *ARMS)


@pytest.mark.parametrize("bag", ["last_round", "all_rounds"])
def test_in_a_round_it_is_a_field(bag):
    config = rlhf_v4.get_config("tiny")
    assert [config[f"rlhf_v{n}_rejection_sampling"].bag for n in range(1, 5)] == ["last_round"] * 3 + ["all_rounds"]
    config.rlhf_v4_rejection_sampling.bag = bag
    recipe.check_stage(config.copy_and_resolve_references(), "rlhf_v4_rejection_sampling", most_records)
    config.rlhf_v4_rejection_sampling.bag = "both"
    with pytest.raises(recipe.RecipeError, match="bag='both': choose one of last_round, all_rounds"):
        recipe.plan(config)
