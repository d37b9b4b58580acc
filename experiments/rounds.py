"""One round of RLHF: annotate, retrain both reward models, sample and keep the best, fine-tune (section 3.2)."""

from ml_collections import ConfigDict

from experiments.pretrain import optimization, sources_of
from experiments.scales import by_scale, shared
from experiments.sft import finetuning_schedule


def add_round(
    config: ConfigDict,
    number: int,
    *,
    newest: str,
    earlier: str,
    bag: str = "last_round",
    dialogues: tuple[str, ...] = (),
) -> None:
    """Adds round `number`'s stages to the experiment.

    Args:
      config: the experiment so far, changed in place.
      number: the round, 1 to 5.
      newest: the stage of the chat model that the round starts from: it is sampled, compared and improved.
      earlier: the stage of the version that it is compared with.
      bag: "last_round": fine-tune on this round's best answers; "all_rounds": on the best of all rounds (from V4 on).
      dialogues: stages whose dialogues join the fine-tuning (Ghost Attention, context distillation).
    """
    name = f"rlhf_v{number}"
    add_annotation(config, number, newest=newest, earlier=earlier)
    for kind in ("helpfulness", "safety"):
        add_reward_model(config, number, kind, newest=newest)
    add_rejection_sampling(config, number, newest=newest, bag=bag, dialogues=dialogues)
    add_version(config, name, f"{name}_rejection_sampling")


def add_version(config: ConfigDict, name: str, stage: str) -> None:
    """A version of the chat model that is evaluated and reported, in this order."""
    # Pairs and not a dict: a ConfigDict is sorted by name.
    config.versions = (*config.versions, (name, stage))


def add_annotation(config: ConfigDict, number: int, *, newest: str, earlier: str) -> None:
    """Comparisons of two versions at different temperatures, rated by the annotator (section 3.2.1)."""
    scale, sources = config.scale, sources_of(config.scale)
    config[f"rlhf_v{number}_annotation"] = {
        "run": "llama2_jax.stages.annotate",
        "inputs": {"tokenizer": "tokenizer", "newest": newest, "earlier": earlier, **sources.annotator_inputs()},
        "round": number,
        "prompts": sources.annotation_prompts(number),
        "annotator": sources.annotator(),
        # The two answers get two different ones; a small model garbles what it samples hotly.
        "temperatures": by_scale(scale, {"tiny": (0.6, 0.8, 1.0)}, paper=(0.7, 1.0, 1.3)),
        "top_p": 1.0,
        "max_new_tokens": shared(config, "answer_tokens"),
        # The paper holds out 1,000 comparisons of each batch (section 3.2.2).
        "test_comparisons": by_scale(scale, {"tiny": 300, "small": 60}, paper=1000),
    }
    config.stages = (*config.stages, f"rlhf_v{number}_annotation")


def add_reward_model(config: ConfigDict, number: int, kind: str, *, newest: str) -> None:
    """A reward model trained on all comparisons so far, from the newest chat model (section 3.2.2)."""
    config[f"rlhf_v{number}_{kind}_reward"] = {
        "run": "llama2_jax.stages.reward_model",
        "inputs": {
            "tokenizer": "tokenizer",
            "start": newest,
            "annotations": tuple(f"rlhf_v{earlier}_annotation" for earlier in range(1, number + 1)),
        },
        "round": number,
        **reward_model(config, kind),
    }
    config.stages = (*config.stages, f"rlhf_v{number}_{kind}_reward")


def reward_model(config: ConfigDict, kind: str) -> dict:
    """How a reward model is trained: one epoch, 512 pairs, margins, the data mix of its kind (section 3.2.2)."""
    scale, sources = config.scale, sources_of(config.scale)
    return {
        "kind": kind,
        "preferences": sources.preferences(
            shared(config.reward_models, "human_comparisons")
        ),  # comparisons from files that count as the model's own
        "open_preferences": sources.open_preferences(),
        "test_preferences": sources.test_preferences(),
        "margin": "small",  # the final choice is not stated; small has the best average of Table 28
        "safety_auxiliary_weight": 1.0,  # not stated
        # Helpfulness: half its own data, half safety and open data. Safety: a tenth helpfulness data.
        "other_fraction": 0.5 if kind == "helpfulness" else 0.1,
        "pairs_per_batch": shared(config.reward_models, "pairs_per_batch"),
        "length": shared(config.model, "max_length"),
        "epochs": 1,
        "accumulation": 1,
        "too_long": by_scale(scale, {"tiny": "raise"}, paper="truncate_left"),
        **optimization(
            learning_rate=shared(config.reward_models, "learning_rate"),
            warmup_steps=5,
            warmup_fraction=0.03,
            save_every=by_scale(scale, {"tiny": 200}, paper=200),
            log_every=by_scale(scale, {"tiny": 10}, paper=10),
        ),
    }


def add_rejection_sampling(
    config: ConfigDict, number: int, *, newest: str, bag: str, dialogues: tuple[str, ...]
) -> None:
    """K answers a prompt, the single best kept, the base model fine-tuned on what was kept (section 3.2.3)."""
    scale, sources = config.scale, sources_of(config.scale)
    name = f"rlhf_v{number}_rejection_sampling"
    earlier_bags = tuple(f"rlhf_v{earlier}_rejection_sampling" for earlier in range(1, number))
    config[name] = {
        "run": "llama2_jax.stages.rejection_sampling",
        "inputs": {
            "tokenizer": "tokenizer",
            # "Always starting from the base model"; in miniature from the chat model, which has less to learn anew.
            "start": by_scale(scale, {"tiny": "sft"}, paper="pretrain"),
            "policy": newest,
            "helpfulness": f"rlhf_v{number}_helpfulness_reward",
            "safety": f"rlhf_v{number}_safety_reward",
            "bags": earlier_bags if bag == "all_rounds" else (),
            "dialogues": dialogues,
        },
        "round": number,
        "prompts": sources.sampling_prompts(number),
        "samples_per_prompt": shared(config, "samples_per_prompt"),
        "temperatures": by_scale(
            scale, {"tiny": (0.4, 0.6, 0.8)}, paper=(0.8, 1.0, 1.2)
        ),  # the sweep that chooses one for the round
        "sweep_prompts": by_scale(scale, {"tiny": 48}, paper=512),
        "top_p": 1.0,
        "max_new_tokens": shared(config, "answer_tokens"),
        "safety_threshold": 0.15,  # the rule of section 3.2.3; how rejection sampling combines is not stated
        "bag_size": by_scale(scale, {"tiny": 1500}, paper=100_000),  # of the rows of all rounds, the best so many
        "sources": sources.demonstrations_after_sampling(),  # fine-tuning data besides the bag
        "finetune": finetuning_schedule(config, epochs=2, learning_rate="learning_rate_after_sampling"),
    }
    config.stages = (*config.stages, name)


def with_evaluation(config: ConfigDict) -> ConfigDict:
    """Ends an experiment: every version evaluated on the same prompts by the newest reward models, then the report."""
    sources = sources_of(config.scale)
    rounds = sum(name.endswith("_annotation") for name in config.stages)
    rewards = [name for name in config.stages if name.endswith(("_helpfulness_reward", "_safety_reward"))]
    config.evaluation = {
        "run": "llama2_jax.stages.evaluate",
        "inputs": {
            "tokenizer": "tokenizer",
            "models": tuple(stage for _, stage in config.versions),
            "helpfulness": f"rlhf_v{rounds}_helpfulness_reward",
            "safety": f"rlhf_v{rounds}_safety_reward",
            **sources.annotator_inputs(),
        },
        "versions": tuple(name for name, _ in config.versions),
        "baseline": "sft",
        "prompts": sources.evaluation_prompts(),
        "instruction_dialogues": sources.instruction_dialogues(),
        "instruction_turns": (2, 4, 6),
        "judge": sources.judge(),
        "temperature": 0.6,  # Meta's defaults for chat
        "top_p": 0.9,
        "max_new_tokens": shared(config, "answer_tokens"),
    }
    config.report = {
        "run": "llama2_jax.stages.report",
        "inputs": {
            "evaluation": "evaluation",
            "pretraining": "pretrain",
            "annotations": tuple(name for name in config.stages if name.endswith("_annotation")),
            "reward_models": tuple(rewards),
            "rejection_sampling": tuple(name for name in config.stages if name.endswith("_rejection_sampling")),
            "ppo": tuple(name for name in config.stages if name.endswith("_ppo")),
            "others": tuple(
                name
                for name in config.stages
                if name != "pretrain" and not name.endswith(("_annotation", "_reward", "_rejection_sampling", "_ppo"))
            ),
        },
    }
    config.stages = (*config.stages, "evaluation", "report")
    return config
