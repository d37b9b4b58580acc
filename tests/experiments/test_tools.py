"""The experiment on tools: SVAMP as it is for real models, a fine-tuning on calls for the miniature's."""

import pytest

from experiments import tools
from experiments.parts.choice import DATA
from experiments.parts.scales import SCALES
from experiments.parts.stages import ROLES
from llama2_jax import recipe
from llama2_jax.data.counts import most_records
from llama2_jax.data.sources import load_function, read
from llama2_jax.miniature.tool_sums import KINDS


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("scale", SCALES)
def test_stages_fit_together(scale, data):
    config = tools.get_config(f"{scale},{data}").copy_and_resolve_references()
    for name in config.stages:
        recipe.check_stage(config, name, most_records)
    recipe.validate(config)
    assert {config[stage].role for stage in config.stages} <= set(ROLES)
    functions = [config.tools.right.function, *(part.function for part in config.tools.tools.values())]
    assert all(callable(load_function(function)) for function in functions)


def test_the_paper_s_protocol_is_zero_shot_on_svamp():
    config = tools.get_config("70b")
    assert list(config.stages) == ["tokenizer", "rlhf_v5_ppo", "tools", "report"]
    assert list(config.tools.benchmark_tasks) == ["svamp"] and config.tools.questions_per_task == 0
    assert not config.tools.questions


def test_the_miniature_s_model_is_shown_calls_and_asked_sums_that_were_not_shown():
    config = tools.get_config()
    assert list(config.stages) == ["tokenizer", "rlhf_v5_ppo", "tool_sft", "tools", "report"]
    assert config.tool_sft.inputs.start == "rlhf_v5_ppo" and config.tools.inputs.models == ("rlhf_v5_ppo", "tool_sft")
    shown = read(config.tool_sft.sources.sums, "", seed=0, kind="dialogues")
    assert len(shown) == 600 and any("injected" in record["messages"][-1] for record in shown)
    described = config.tools.tools.CALCULATOR.description
    assert f"\nCALCULATOR: {described}\n" in next(
        record["messages"][0]["content"] for record in shown if "injected" in record["messages"][-1]
    )
    assert set(config.tools.questions) == set(KINDS)
    for source in config.tools.questions.values():
        assert all(record["answer"] for record in read(source, "", seed=0, kind="prompts"))
