"""One round of RLHF: annotate, retrain both reward models, sample and keep the best, fine-tune (section 3.2)."""

from collections.abc import Iterable

from ml_collections import ConfigDict

from experiments.parts.choice import sources_of
from experiments.parts.scales import by_scale
from experiments.parts.shared_settings import shared
from experiments.parts.stages import add_stage
from experiments.parts.training import finetuning_schedule, reward_model

KINDS = ("helpfulness", "safety")
LAST_ROUND = 5
GENERAL_REWARD = "general_reward"


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
    add_reward_models(config, number, newest=newest)
    add_rejection_sampling(config, number, newest=newest, bag=bag, dialogues=dialogues)
    add_version(config, name, f"{name}_rejection_sampling")


def add_version(config: ConfigDict, name: str, stage: str) -> None:
    """Adds a version of the chat model that is evaluated and reported, in this order."""
    # Pairs and not a dict: a ConfigDict is sorted by name.
    config.versions = (*config.versions, (name, stage))


def add_annotator_models(config: ConfigDict) -> None:
    """Adds the reward models that annotate and judge, where the data has such annotators.

    They train on human comparisons that the recipe's own reward models never see.
    """
    sources = sources_of(config)
    for kind in sources.annotator_kinds:
        add_stage(config, f"annotator_{kind}", {
            "run": "llama2_jax.stages.reward_model",
            "role": "annotator_model",
            "inputs": {"tokenizer": "tokenizer", "start": "sft", "annotations": ()},
            "round": 0,
            **reward_model(config, kind),
            "preferences": sources.annotator_preferences(shared(config.reward_models, "human_comparisons")),
        })  # fmt: skip


def add_general_reward(config: ConfigDict) -> None:
    """Adds the general reward model, where the data has open comparisons: it trains on them alone (section 3.4.1)."""
    sources = sources_of(config)
    comparisons = sources.general_preferences(shared(config.reward_models, "human_comparisons"))
    if comparisons:
        add_stage(config, GENERAL_REWARD, {
            "run": "llama2_jax.stages.reward_model",
            "role": "general_reward_model",
            "inputs": {"tokenizer": "tokenizer", "start": "sft", "annotations": ()},
            "round": 0,
            **reward_model(config, "general"),
            "preferences": {},
            "open_preferences": comparisons,
            "test_preferences": sources.general_test_preferences,
        })  # fmt: skip


def general_reward_input(config: ConfigDict) -> dict[str, str]:
    """Returns the general reward model as a stage's input; nothing if the experiment has none."""
    return {"general": GENERAL_REWARD} if GENERAL_REWARD in config.stages else {}


def add_annotation(config: ConfigDict, number: int, *, newest: str, earlier: str) -> None:
    """Adds comparisons of two versions at different temperatures, rated by the annotator (section 3.2.1)."""
    scale, sources = config.scale, sources_of(config)
    add_stage(config, f"rlhf_v{number}_annotation", {
        "run": "llama2_jax.stages.annotate",
        "role": "annotation",
        "inputs": {
            "tokenizer": "tokenizer",
            "newest": newest,
            "earlier": earlier,
            # A prompt that one round holds out is held out in all of them.
            "annotations": _annotations(range(1, number)),
            **sources.annotator_inputs,
        },
        "round": number,
        "prompts": sources.annotation_prompts(number),
        "annotator": sources.annotator,
        # The two answers get two different ones; a small model garbles what it samples hotly.
        "temperatures": by_scale(scale, {"tiny": (0.6, 0.8, 1.0)}, paper=(0.7, 1.0, 1.3)),
        "top_p": 1.0,
        "max_new_tokens": shared(config, "answer_tokens"),
        "test_comparisons": sources.test_comparisons(scale),
    })  # fmt: skip


def add_reward_models(config: ConfigDict, number: int, *, newest: str) -> None:
    """Adds both reward models, trained on all comparisons so far from the newest chat model (section 3.2.2)."""
    for kind in KINDS:
        add_stage(config, f"rlhf_v{number}_{kind}_reward", {
            "run": "llama2_jax.stages.reward_model",
            "role": "reward_model",
            "inputs": {
                "tokenizer": "tokenizer",
                "start": newest,
                "annotations": _annotations(range(1, number + 1)),
            },
            "round": number,
            **reward_model(config, kind),
        })  # fmt: skip


def add_rejection_sampling(
    config: ConfigDict, number: int, *, newest: str, bag: str, dialogues: tuple[str, ...]
) -> None:
    """Adds K answers a prompt, the single best kept, and the fine-tuning on what was kept (section 3.2.3)."""
    scale, sources = config.scale, sources_of(config)
    add_stage(config, f"rlhf_v{number}_rejection_sampling", {
        "run": "llama2_jax.stages.rejection_sampling",
        "role": "rejection_sampling",
        "inputs": {
            "tokenizer": "tokenizer",
            "start": sources.start_after_sampling,
            "policy": newest,
            "helpfulness": f"rlhf_v{number}_helpfulness_reward",
            "safety": f"rlhf_v{number}_safety_reward",
            "bags": tuple(f"rlhf_v{earlier}_rejection_sampling" for earlier in range(1, number)),
            "dialogues": dialogues,
        },
        "round": number,
        "prompts": sources.sampling_prompts(number),
        "samples_per_prompt": shared(config, "samples_per_prompt"),
        # The sweep that chooses one for the round; the middle one if no other is better by more than chance.
        # After RLHF 1.2 to 1.3 is best for 10 to 100 answers (figure 8).
        "temperatures": by_scale(scale, {"tiny": (0.4, 0.6, 0.8)}, paper=(0.8, 1.0, 1.1, 1.2, 1.3)),
        "sweep_prompts": by_scale(scale, {"tiny": 48, "small": 128}, paper=512),
        # More than the round's show how far more answers would carry (figures 7 and 8, up to 100).
        "sweep_samples_per_prompt": shared(config, "samples_per_prompt"),
        "sweep_error_rate": 0.05,  # how often the middle temperature is left at most, if all are equal
        "top_p": 1.0,
        "max_new_tokens": shared(config, "answer_tokens"),
        "safety_threshold": shared(config, "safety_threshold"),
        # "last_round" forgets what the rounds before had learnt; "all_rounds" has their best answers too.
        "bag": bag,
        "bag_size": sources.bag_size,  # of the rows of all rounds, the best so many
        "bag_answers_per_prompt": 1,  # of the answers of all rounds to one prompt, the best so many
        "sources": sources.demonstrations_after_sampling(number),  # fine-tuning data besides the bag
        "finetune": finetuning_schedule(config, epochs=2, learning_rate="learning_rate_after_sampling"),
    })  # fmt: skip


def _annotations(rounds: Iterable[int]) -> tuple[str, ...]:
    return tuple(f"rlhf_v{number}_annotation" for number in rounds)


def add_finetuning(
    config: ConfigDict, name: str, inputs: dict[str, tuple[str, ...]], *, number: int = LAST_ROUND, **fields
) -> None:
    """Adds a fine-tuning as a round's is, from where it starts, on what other stages wrote (section 3.2.3).

    Args:
      config: the experiment so far, changed in place.
      name: the stage's.
      inputs: the stages that wrote `bags`, `samples` or `dialogues`.
      number: the round whose demonstrations join them.
      fields: more of the stage's part, or others, such as its role.
    """
    sources = sources_of(config)
    add_stage(config, name, {
        "run": "llama2_jax.stages.finetune",
        "role": "finetuning",
        "inputs": {"tokenizer": "tokenizer", "start": sources.start_after_sampling, **inputs},
        "sources": sources.demonstrations_after_sampling(number),
        "held_out": {},
        "finetune": finetuning_schedule(config, epochs=2, learning_rate="learning_rate_after_sampling"),
        **fields,
    })  # fmt: skip
