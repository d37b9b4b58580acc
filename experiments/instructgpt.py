"""InstructGPT (Ouyang et al. 2022), from which Llama 2 departs: rankings, one reward model, PPO with pretraining text.

A finished run of rlhf_v5, config.source_run, gives its tokenizer, models and prompts. SFT's answers are ranked, 4 to 9
to a prompt, until raters have read as many as they did in all five rounds, two to each comparison. One reward model
learns from all pairs; PPO goes from SFT against it, with pretraining text beside the answers (PPO-ptx) and the average
of the policy's weights, and once more without the text. All are evaluated beside V5.

Reaches (tiny, seed 13): its reward model ranks 0.66 of held-out comparisons right in both domains, V5's two 0.62 and
0.69 in their own. Without text the policy has true helpfulness 0.69 from 0.58 (V5: 0.65), by style, 0.61 wholly right
answers from 0.65 (V5: 0.75) and violations of 0.13 from 0.50 (V5: 0.10). With text it has 0.59 and 0.22, and a loss on
pretraining's text of 0.52, where pretraining left it at 0.47 and SFT has 0.92, V5 1.07 (nats a token).
Costs (tiny): 20 minutes on 2 CPU cores that other work kept busy, after the run of rlhf_v5.
Run: python -m llama2_jax.main --config=experiments/instructgpt.py[:<scale>[,<data>]] --config.source_run=<workdir>
"""

from ml_collections import ConfigDict

from experiments import rlhf_v1
from experiments.parts.choice import sources_of
from experiments.parts.ending import with_evaluation
from experiments.parts.ppo import REWARD_MODELS, add_ppo
from experiments.parts.rankings import add_ranked_reward_model, add_rankings, annotations
from experiments.parts.rounds import add_version
from experiments.parts.scales import by_scale
from experiments.parts.source_run import add_records, keep_models
from experiments.parts.stages import add_stage
from experiments.parts.training import row_length

# By version the stage with its model, those of PPO trained here.
VERSIONS = {
    "sft": "sft",
    "instructgpt_without_ptx": "instructgpt_without_ptx",
    "instructgpt": "instructgpt",
    "rlhf_v5": "rlhf_v5_ppo",
}
TRAINED = ("instructgpt_without_ptx", "instructgpt")


def get_config(argument: str = "tiny") -> ConfigDict:
    """The experiment at a scale, on its default data or other (parts/choice.py)."""
    config = rlhf_v1.start(argument)
    keep_models(config, "instructgpt", ("pretrain", *(stage for stage in VERSIONS.values() if stage not in TRAINED)))
    for name in annotations():
        add_records(config, name, "annotation")
    add_rankings(config, policy="sft")
    add_ranked_reward_model(config, start="sft")
    add_instructgpt(config, "instructgpt_without_ptx", {"coefficient": 0.0})
    add_instructgpt(config, "instructgpt", pretraining_mix(config))
    for name, stage in VERSIONS.items():
        add_version(config, name, stage)
    add_text_loss(config)
    return with_evaluation(config, reward_models=REWARD_MODELS)


def pretraining_mix(config: ConfigDict) -> dict:
    """Returns the text beside the answers: 27.8 times its mean loss, on eight times as many rows as answers."""
    return {
        "coefficient": by_scale(config.scale, {"tiny": 2.0}, paper=27.8),
        "batch_size": by_scale(config.scale, {"tiny": 8, "small": 64}, paper=512),
        "sources": sources_of(config).pretraining,
    }


def add_instructgpt(config: ConfigDict, name: str, mix: dict) -> None:
    """Adds PPO as InstructGPT has it (its section 3.5 and appendix C.4); what it does not state is V5's."""
    scale = config.scale
    add_ppo(
        config,
        name,
        policy="sft",
        reward_models=dict.fromkeys(REWARD_MODELS, "ranked_reward"),
        reward={"function": "llama2_jax.pipeline.reward_models.single_reward", "arguments": {}},
        whiten_by_tag=False,  # one reward model's scores have
        iterations=by_scale(scale, {"tiny": 16, "small": 100}, paper=500),  # 256,000 episodes
        kl_coefficient=by_scale(scale, {"tiny": 0.05}, paper=0.02),  # a small model's leash is short
        pretraining_mix=mix,
        ema_decay=by_scale(scale, {"tiny": 0.9}, paper=0.992),  # in tiny a policy takes some fifty steps in all
        warmup_steps=by_scale(scale, {"tiny": 8}, paper=10),  # iterations, the first at a tenth of the peak
        critic_learning_rate=by_scale(scale, {"tiny": 1e-3, "small": 1e-5}, paper=9e-6),
        guarded=False,  # nothing watches over it
    )


def add_text_loss(config: ConfigDict) -> None:
    """Adds what each version, and the model that all come from, still knows of the text that pretraining held out."""
    versions = {"pretrain": "pretrain", **dict(config.versions)}
    add_stage(config, "text_loss", {
        "run": "llama2_jax.stages.text_loss",
        "role": "text_loss",
        "inputs": {"tokenizer": "tokenizer", "models": tuple(versions.values())},
        "versions": tuple(versions),
        "sources": sources_of(config).pretraining,
        "length": row_length(config),
        "batch_size": 8,
        "held_out_batches": 32,
    })  # fmt: skip
