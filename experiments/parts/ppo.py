"""Proximal policy optimisation against reward models (section 3.2.3, equation 4)."""

from collections.abc import Mapping

from ml_collections import ConfigDict

from experiments.parts.choice import sources_of
from experiments.parts.rounds import KINDS, general_reward_input
from experiments.parts.scales import by_scale
from experiments.parts.shared_settings import shared
from experiments.parts.stages import add_stage
from experiments.parts.training import optimization

# The last round's reward models.
REWARD_MODELS = {kind: f"rlhf_v5_{kind}_reward" for kind in KINDS}


def add_ppo(
    config: ConfigDict,
    name: str,
    *,
    policy: str,
    reward_models: Mapping[str, str] = REWARD_MODELS,
    advantages: dict | None = None,
    **changes,
) -> None:
    """Adds PPO of a policy, by default against the piecewise reward of the last round's reward models.

    Args:
      config: the experiment so far, changed in place.
      name: the stage's.
      policy: the stage whose model it starts from, and is measured against.
      reward_models: the stages of "helpfulness" and "safety", which may be one.
      advantages: how they are estimated, in place of V5's critic and its settings.
      changes: fields in which the stage differs from V5's.
    """
    sources = sources_of(config)
    add_stage(config, name, {
        "run": "llama2_jax.stages.ppo",
        "role": "ppo",
        "inputs": {
            "tokenizer": "tokenizer",
            "policy": policy,
            **reward_models,
            **general_reward_input(config),  # it watches, and trains nothing
        },
        "prompts": sources.ppo_prompts,
        "held_out_prompts": sources.ppo_held_out_prompts,
        "reward": {
            "function": "llama2_jax.pipeline.reward_models.piecewise_reward",
            "arguments": {"safety_threshold": shared(config, "safety_threshold")},
        },
        "whiten_by_tag": True,  # two reward models' scores have no common zero or unit; the paper only says "whiten"
        **settings(config),
        **(advantages or critic(config)),
        **changes,
    })  # fmt: skip


def settings(config: ConfigDict) -> dict:
    """Returns V5's settings, but for how advantages are estimated."""
    scale = config.scale
    return {
        "iterations": by_scale(scale, {"tiny": 12, "small": 100}, paper=400),  # 200 to 400
        "batch_size": by_scale(scale, {"tiny": 256}, paper=512),  # answers
        "minibatch_size": 64,  # one gradient step each
        "accumulation": by_scale(scale, {"1b": 8}, paper=1),  # each minibatch in so many parts, one after the other
        # A small reward model is soon exploited: the smaller the models, the shorter the leash.
        "kl_coefficient": by_scale(scale, {"tiny": 0.15, "34b": 0.005, "70b": 0.005}, paper=0.01),
        "clip": 0.2,
        # Not stated; the policy is the softmax at this temperature, and nothing is cut off. In tiny it is closer to how
        # answers are given in the end (0.6), so that the steps mend these and not what would hardly be said.
        "temperature": by_scale(scale, {"tiny": 0.8}, paper=1.0),
        "max_new_tokens": shared(config, "answer_tokens"),
        "missing_eos_penalty": by_scale(scale, {"tiny": 1.0}, paper=0.0),
        "pretraining_mix": {"coefficient": 0.0},  # InstructGPT's text beside the answers; Llama 2 has none
        "ema_decay": 0.0,  # InstructGPT's average of the policy's weights; Llama 2 has none
        "evaluate_every": by_scale(scale, {"tiny": 2}, paper=20),
        # Keep no policy that pays for one thing with another, or for which the general reward falls (section 3.4.1).
        "guarded": True,
        # Evaluations on the held-out prompts without a better reward before it stops. In tiny all five are made: a
        # policy may refuse more at first and win back by the end what that cost.
        "patience": by_scale(scale, {"tiny": 5}, paper=3),
        **optimization(
            config,
            learning_rate=by_scale(scale, {"tiny": 3e-4, "small": 3e-6}, paper=1e-6),
            warmup_steps=by_scale(scale, {"tiny": 8}, paper=0),  # the first steps follow a critic that knows little
            final_fraction=1.0,  # constant
        ),
        "save_every": 10,
    }


def critic(config: ConfigDict) -> dict:
    """Returns V5's critic: not stated, as InstructGPT and its reproductions have it."""
    scale = config.scale
    return {
        "advantages": "critic",
        "samples_per_prompt": 1,
        "value_clip": 0.2,
        "gamma": 1.0,
        "lambda_": 0.95,
        "whiten_advantages": True,
        "critic_warmup_iterations": by_scale(scale, {"tiny": 3}, paper=0),
        "critic_learning_rate": by_scale(scale, {"tiny": 1e-3, "small": 1e-5}, paper=1e-6),
    }
