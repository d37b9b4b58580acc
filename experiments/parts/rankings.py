"""Rankings of several answers to a prompt, and the reward model that learns from them (InstructGPT)."""

from ml_collections import ConfigDict

from experiments.parts.choice import sources_of
from experiments.parts.scales import by_scale
from experiments.parts.shared_settings import shared
from experiments.parts.source_run import ROUNDS
from experiments.parts.sources import SourceDict, Sources
from experiments.parts.stages import add_stage
from experiments.parts.training import optimization, row_length

ANSWERS_PER_PROMPT = (4, 9)


def annotations() -> tuple[str, ...]:
    """Returns the stages that compared the answers of all rounds."""
    return tuple(f"rlhf_v{number}_annotation" for number in ROUNDS)


def prompts_of_all_rounds(sources: Sources) -> SourceDict:
    """Returns the prompts of all rounds' annotations, of which the rankings take some at random."""
    return {
        f"round_{number}_{name}": source
        for number in ROUNDS
        for name, source in sources.annotation_prompts(number).items()
    }


def judged_answers(sources: Sources) -> int:
    """Returns how many answers the raters of all rounds read at most: two to each prompt."""
    rounds = prompts_of_all_rounds(sources).values()
    return 2 * sum(source["limit"] if "limit" in source else source["arguments"]["count"] for source in rounds)


def add_rankings(config: ConfigDict, *, policy: str) -> None:
    """Adds rankings of a model's answers, on the annotation budget of all rounds, in answers that raters read."""
    sources = sources_of(config)
    add_stage(config, "rankings", {
        "run": "llama2_jax.stages.rank_answers",
        "role": "ranking",
        "inputs": {"tokenizer": "tokenizer", "policy": policy, **sources.annotator_inputs},
        "prompts": prompts_of_all_rounds(sources),
        "ranker": sources.ranker,
        "answers_per_prompt": ANSWERS_PER_PROMPT,
        "judged_answers": judged_answers(sources),
        "temperature": by_scale(config.scale, {"tiny": 0.8}, paper=1.0),  # not stated
        "top_p": 1.0,
        "max_new_tokens": shared(config, "answer_tokens"),
    })  # fmt: skip


def add_ranked_reward_model(config: ConfigDict, *, start: str) -> None:
    """Adds the reward model on rankings: one epoch, 64 prompts a batch, 9e-6 by a cosine to a tenth."""
    scale, sources, group = config.scale, sources_of(config), config.reward_models
    add_stage(config, "ranked_reward", {
        "run": "llama2_jax.stages.ranked_reward_model",
        "role": "ranked_reward_model",
        "inputs": {"tokenizer": "tokenizer", "start": start, "rankings": ("rankings",), "annotations": annotations()},
        "rankings": {},  # from files
        "test_preferences": sources.test_preferences,
        "prompts_per_batch": by_scale(scale, {"tiny": 5, "small": 16}, paper=64),
        "most_answers": max(ANSWERS_PER_PROMPT),
        "epochs": 1,
        "accumulation": by_scale(scale, {"tiny": 1, "small": 4, "1b": 32}, paper=4),
        "too_long": shared(group, "too_long"),
        "length": row_length(config),
        # They score 0 on average at last.
        "demonstrations": sources.demonstrations,
        "offset_demonstrations": 1000,
        "save_every": shared(group, "save_every"),
        "log_every": shared(group, "log_every"),
        **optimization(config, learning_rate=by_scale(scale, {"tiny": 2e-3, "small": 5e-5}, paper=9e-6)),
    })  # fmt: skip
