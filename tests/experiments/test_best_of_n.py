"""Best of N beside V5: nothing is trained, and all versions are asked the same."""

import pytest

from experiments import best_of_n, rlhf_v5
from llama2_jax import recipe


@pytest.mark.parametrize("argument", ["tiny", "7b", "1b,real", "small,miniature"])
def test_nothing_is_trained(argument):
    config = best_of_n.get_config(argument)
    config.source_run = "/runs/mine"
    recipe.validate(config)
    roles = {config[name].role for name in config.stages}
    assert roles == {"tokenizer", "imported", "evaluation", "report"}
    imported = [name for name in config.stages if config[name].role == "imported"]
    assert len(imported) == len(set(imported)) and set(imported) < set(rlhf_v5.get_config(argument).stages)


def test_a_version_s_model_is_that_which_is_asked_once_too():
    evaluation = best_of_n.get_config().evaluation
    models = dict(zip(evaluation.versions, evaluation.inputs.models, strict=True))
    assert evaluation.answers_per_prompt.to_dict() == {
        "sft_best_of_4": 4, "sft_best_of_16": 16, "sft_best_of_64": 64, "rlhf_v5_rejection_sampling_best_of_16": 16,
    }  # fmt: skip
    for name in evaluation.answers_per_prompt:
        assert models[name] == models[name.split("_best_of_")[0]]
    source = rlhf_v5.get_config().evaluation
    assert evaluation.prompts == source.prompts and evaluation.judge == source.judge
    assert [evaluation.inputs[name] for name in ("helpfulness", "safety", "general")] == [
        source.inputs[name] for name in ("helpfulness", "safety", "general")
    ]
    assert not source.answers_per_prompt, "the recipe's own versions give one answer"
