"""A bad line stops a stage before its models are loaded, not hours later."""

import pytest
from etils import epath
from ml_collections import ConfigDict

from llama2_jax.data.bad_line import BadLine
from llama2_jax.pipeline import encoding
from llama2_jax.stages import (
    annotate,
    context_distillation,
    evaluate,
    ghost_attention,
    ppo,
    rank_answers,
    ranked_reward_model,
    rejection_sampling,
    reward_model,
)
from tests.smallest import Letters, smallest_runtime

RECORDS = {
    "prompts": {"messages": [{"role": "user", "content": "a"}]},
    "preprompts": {"preprompt": "be careful"},
    "user_turns": {"turns": ["a"]},
    "preferences": {"messages": [{"role": "user", "content": "a"}], "chosen": "b", "rejected": "c", "domain": "safety"},
    "rankings": {"messages": [{"role": "user", "content": "a"}], "answers": ["b", "c", "d"], "ranks": [1, 3, 1]},
}


def made(*, seed, kind):
    del seed
    return [RECORDS[kind]]


def good(kind):
    return {"good": {"function": f"{__name__}.made", "arguments": {"kind": kind}, "format": kind}}


STAGES = {
    "annotate": (annotate, "prompts", {}),
    "context_distillation": (context_distillation, "prompts", {"preprompts": good("preprompts")}),
    "preprompts": (context_distillation, "preprompts", {"prompts": good("prompts")}),
    "evaluate": (evaluate, "prompts", {}),
    "instruction_dialogues": (evaluate, "instruction_dialogues", {"prompts": good("prompts")}),
    "ghost_attention": (ghost_attention, "dialogues", {}),
    "instructions": (ghost_attention, "instructions", {"dialogues": good("user_turns")}),
    "ppo": (ppo, "prompts", {}),
    "held_out_prompts": (
        ppo, "held_out_prompts", {"prompts": good("prompts"), "batch_size": 1, "samples_per_prompt": 1},
    ),
    "pretraining_mix": (ppo, "pretraining_mix.sources", {
        "prompts": good("prompts"), "held_out_prompts": good("prompts"), "batch_size": 1, "samples_per_prompt": 1,
        "pretraining_mix": {"coefficient": 1.0, "batch_size": 1},
    }),
    "rank_answers": (rank_answers, "prompts", {}),
    "rankings": (ranked_reward_model, "rankings", {"test_preferences": {}}),
    "demonstrations": (ranked_reward_model, "demonstrations", {
        "test_preferences": {}, "rankings": good("rankings"), "length": 64, "too_long": "raise",
    }),
    "rejection_sampling": (rejection_sampling, "sources", {}),
    "preferences": (reward_model, "preferences", {"test_preferences": {}}),
    "test_preferences": (reward_model, "test_preferences",
                         {"preferences": good("preferences"), "open_preferences": {}, "kind": "safety",
                          "margin": "none", "other_fraction": 0.1, "length": 64, "too_long": "raise"}),
}  # fmt: skip


@pytest.mark.parametrize("name", STAGES)
def test_a_bad_line_is_found_before_a_model_is_loaded(tmp_path, monkeypatch, name):
    stage, field, rest = STAGES[name]
    for loader in ("load_model", "load_policy", "load_reward_models"):
        if hasattr(stage, loader):
            monkeypatch.setattr(stage, loader, lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda _: Letters())
    (tmp_path / "x.jsonl").write_text('{"messages": 3}\n')
    (tmp_path / "comparisons.jsonl").write_text("")
    (tmp_path / "comparisons_test.jsonl").write_text("")
    (tmp_path / "rankings.jsonl").write_text("")
    config = ConfigDict({"max_new_tokens": 8, **rest})
    part, _, name = field.rpartition(".")
    (config[part] if part else config)[name] = {"bad": {"path": "x.jsonl", "format": "raw"}}
    roles = ("tokenizer", "policy", "newest", "earlier", "safety", "helpfulness", "start", "annotations", "rankings")
    with pytest.raises(BadLine, match=r"x\.jsonl:1: "):
        stage.run(config, dict.fromkeys(roles, epath.Path(tmp_path)), smallest_runtime(tmp_path))
