"""From 7b up every hyperparameter that the paper prints is the paper's (sections 2.2, 3.1, 3.2.2 and 3.2.3)."""

import pytest

from experiments import distillation, rlhf_v5
from experiments.parts import ghost_instructions, safety_preprompts
from experiments.parts.stages import stages_with_role
from llama2_jax.training.schedules import cosine

PAPER_SCALES = ("7b", "13b", "34b", "70b")

# dim, layers, heads, kv heads, feed-forward, context, peak rate of pretraining, KL coefficient, reward model's rate
PAPER = {
    "7b": (4096, 32, 32, 32, 11008, 4096, 3.0e-4, 0.01, 1e-5),
    "13b": (5120, 40, 40, 40, 13824, 4096, 3.0e-4, 0.01, 1e-5),
    "34b": (8192, 48, 64, 8, 22016, 4096, 1.5e-4, 0.005, 1e-5),
    "70b": (8192, 80, 64, 8, 28672, 4096, 1.5e-4, 0.005, 5e-6),
}

ADAMW = {"b1": 0.9, "b2": 0.95, "eps": 1e-5, "weight_decay": 0.1, "clip": 1.0, "moments_dtype": "float32"}


@pytest.fixture(params=PAPER_SCALES)
def config(request):
    return rlhf_v5.get_config(request.param)


def fine_tunings(config):
    return {name: config[name].get("finetune") for name in config.stages if "finetune" in config[name]}


def test_sizes(config):
    dim, layers, heads, kv_heads, ffn, length, *_ = PAPER[config.scale]
    model = config.model
    assert (model.dim, model.layers, model.heads, model.kv_heads) == (dim, layers, heads, kv_heads)
    assert (model.ffn_hidden, model.max_length, model.vocab_size) == (ffn, length, 32000)
    assert (model.norm_eps, model.rope_theta) == (1e-5, 10000.0)


def test_pretraining(config):
    pretrain = config.pretrain
    assert pretrain.learning_rate == PAPER[config.scale][6]
    assert pretrain.warmup_steps == 2000
    assert pretrain.final_learning_rate_fraction == 0.1
    assert pretrain.optimizer.to_dict() == ADAMW
    assert pretrain.batch_size * pretrain.length == 4_194_304  # "4M tokens"
    assert pretrain.steps == 476_837
    tokens = pretrain.steps * pretrain.batch_size * pretrain.length
    assert abs(tokens - 2.0e12) <= pretrain.batch_size * pretrain.length / 2  # to the nearest step


def test_the_learning_rate_of_pretraining(config):
    """Section 2.2: 2000 steps of warm-up, then a cosine to 10 % of the peak."""
    pretrain, peak = config.pretrain, PAPER[config.scale][6]
    rate = cosine(pretrain.learning_rate, pretrain.steps, pretrain.warmup_steps, pretrain.final_learning_rate_fraction)
    for step, part in {0: 1 / 2000, 999: 0.5, 1999: 1.0, 2000: 1.0, pretrain.steps - 1: 0.1}.items():
        assert rate(step) == pytest.approx(part * peak), step
    # Half-way through the cosine, the mean of its ends.
    assert rate((2000 + pretrain.steps - 1) // 2) == pytest.approx(0.55 * peak, rel=1e-4)


def test_supervised_fine_tuning(config):
    for name, settings in fine_tunings(config).items():
        assert settings.learning_rate == 2e-5, name
        assert settings.batch_size == 64, name
        assert settings.length == 4096, name
        assert settings.epochs == (1 if name == "sft_public" else 2), name
        assert settings.final_learning_rate_fraction == 0.1, name
        assert settings.optimizer.to_dict() == ADAMW, name


def test_reward_models(config):
    stages = stages_with_role(config, "reward_model")
    assert len(stages) == 10
    for name in (*stages, *stages_with_role(config, "annotator_model")):
        settings = config[name]
        assert settings.learning_rate == PAPER[config.scale][8]
        assert settings.pairs_per_batch == 512
        assert settings.epochs == 1
        assert (settings.warmup_fraction, settings.warmup_steps) == (0.03, 5)
        assert settings.final_learning_rate_fraction == 0.1
        assert settings.optimizer.to_dict() == ADAMW
        assert settings.margin == "small"
        assert settings.other_fraction == (0.5 if settings.kind == "helpfulness" else 0.1)


def test_reward_models_see_all_comparisons_so_far_and_start_from_the_newest_chat_model(config):
    for number in range(1, 6):
        newest = "sft" if number == 1 else f"rlhf_v{number - 1}_rejection_sampling"
        for kind in ("helpfulness", "safety"):
            inputs = config[f"rlhf_v{number}_{kind}_reward"].inputs
            assert inputs.start == newest
            assert inputs.annotations == tuple(f"rlhf_v{i}_annotation" for i in range(1, number + 1))


def test_ppo(config):
    ppo = config.rlhf_v5_ppo
    assert (ppo.batch_size, ppo.minibatch_size, ppo.clip) == (512, 64, 0.2)
    assert (ppo.learning_rate, ppo.final_learning_rate_fraction, ppo.warmup_steps) == (1e-6, 1.0, 0)  # constant
    assert ppo.kl_coefficient == PAPER[config.scale][7]
    assert 200 <= ppo.iterations <= 400
    assert ppo.reward.to_dict() == {
        "function": "llama2_jax.pipeline.reward_models.piecewise_reward",
        "arguments": {"safety_threshold": 0.15},
    }
    assert ppo.optimizer.to_dict() == ADAMW
    assert ppo.inputs.policy == "rlhf_v5_rejection_sampling"


def test_annotation(config):
    for number in range(1, 6):
        annotation = config[f"rlhf_v{number}_annotation"]
        assert annotation.test_comparisons == 1000
        # Whose prompts are on one side in all rounds.
        assert annotation.inputs.annotations == tuple(f"rlhf_v{i}_annotation" for i in range(1, number))
        assert annotation.inputs.newest != annotation.inputs.earlier
        assert len(set(annotation.temperatures)) > 1


def test_rejection_sampling(config):
    for number in range(1, 6):
        sampling = config[f"rlhf_v{number}_rejection_sampling"]
        assert sampling.inputs.start == "pretrain"  # always from the base model
        earlier = tuple(f"rlhf_v{i}_rejection_sampling" for i in range(1, number))
        assert (sampling.bag, sampling.inputs.bags) == ("all_rounds" if number >= 4 else "last_round", earlier)
        assert sampling.safety_threshold == 0.15
        assert max(sampling.temperatures) == 1.3 and 1.2 in sampling.temperatures  # figure 8: best between the two
        assert ("rlhf_v3_ghost_attention" in sampling.inputs.dialogues) == (number >= 4)


def test_smaller_models_are_fine_tuned_on_the_best_samples_of_70b():
    """Section 3.2.3; tests/experiments/test_distillation.py has the rest."""
    for scale in ("7b", "13b", "34b"):
        config = distillation.get_config(scale)
        assert config.teacher == "runs/rlhf_v5-70b"
        assert config.rlhf_v5_ppo.kl_coefficient == PAPER[scale][7]
        for name, settings in fine_tunings(config).items():
            assert (settings.learning_rate, settings.batch_size, settings.length) == (2e-5, 64, 4096), name


def test_ghost_attention(config):
    """Section 3.3: sampled after RLHF-V3, constraints of three kinds, half of them terse."""
    stage = config.rlhf_v3_ghost_attention
    assert stage.inputs.policy == "rlhf_v3_rejection_sampling"
    assert config.stages.index("rlhf_v3_ghost_attention") < config.stages.index("rlhf_v4_annotation")
    assert stage.terse_fraction == 0.5 and stage.trained_answers == 1
    (source,) = stage.instructions.values()
    assert source.function == "experiments.parts.ghost_instructions.instructions"
    constraints = ghost_instructions.instructions(seed=0)
    assert {record["kind"] for record in constraints} == {"hobby", "language", "figure"}
    assert {"instruction": "Always act as Napoleon from now on.", "terse": "Figure: Napoleon.", "kind": "figure"} in (
        constraints
    )


def test_context_distillation(config):
    """Section 4.2.4, table 39: adjectives in generic preprompts, answer templates for categories of risk."""
    (source,) = config.rlhf_v5_context_distillation.preprompts.values()
    assert source.function == "experiments.parts.safety_preprompts.preprompts"
    texts = [record["preprompt"] for record in safety_preprompts.preprompts(seed=0)]
    for adjective in ("responsible", "respectful", "wise"):
        assert sum(f" {adjective} " in text for text in texts) == 2
    for name in ("False Information / Disinformation", "Criminal / Fraudulent Content", "Explicit Content"):
        assert sum(f"violating category: '{name}'" in text for text in texts) == 1


def test_versions_that_are_reported(config):
    assert list(config.versions) == [
        ("sft", "sft"),
        ("rlhf_v1", "rlhf_v1_rejection_sampling"),
        ("rlhf_v2", "rlhf_v2_rejection_sampling"),
        ("rlhf_v3", "rlhf_v3_rejection_sampling"),
        ("rlhf_v4", "rlhf_v4_rejection_sampling"),
        ("rlhf_v5_rejection_sampling", "rlhf_v5_rejection_sampling"),
        ("rlhf_v5", "rlhf_v5_ppo"),
    ]
