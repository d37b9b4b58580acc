"""Real data: public files under data.root, laid out as docs/data.md says.

Each file is cut into parts that do not share a conversation: of the demonstrations one to train and one to measure the
loss, of the comparisons one to train the reward models, one to train the annotators, and one to test.
"""

from experiments.parts.scales import by_scale
from experiments.parts.sources import Limit, SourceDict, Sources

HELPFUL = "preferences_helpful/hh_rlhf/*/test.jsonl.gz"
HARMLESS = "preferences_safety/hh_rlhf/harmless-base/test.jsonl.gz"
ALL = 1_000_000_000  # a limit that can be turned down

# Between 0 and 1 in the order of the conversations' hashes.
Part = tuple[float, float]
TRAINING, HELD_OUT = (0.0, 0.98), (0.98, 1.0)
REWARD_MODELS, ANNOTATORS, TEST = (0.0, 0.5), (0.5, 0.85), (0.85, 1.0)


def text(path: str, weight: float) -> dict:
    """Returns a source of text."""
    return {"path": path, "format": "text", "weight": weight, "limit": ALL}


def public_demonstrations(part: Part) -> SourceDict:
    """Returns a part of Dolly's instructions."""
    return {
        "dolly": {
            "path": "sft/dolly15k/databricks-dolly-15k.jsonl.gz",
            "format": "dialogues",
            "columns": {"user": "instruction", "context": "context", "assistant": "response"},
            "part": part,
            "limit": ALL,
        },
    }


def demonstrations(part: Part) -> SourceDict:
    """Returns a part of LIMA and of Safety-Tuned LLaMAs."""
    paths = {
        "lima": "sft/lima/lima.json.gz",
        "safety": "sft/safety_tuned_llamas/safety_only_data_Instructions.json.gz",
    }
    return {name: {"path": path, "format": "alpaca", "part": part, "limit": ALL} for name, path in paths.items()}


def hh_rlhf(path: str, kind: str, part: Part, limit: Limit, **fields) -> dict:
    """Returns a part of the conversations of Anthropic's HH-RLHF; some of its lines hold no comparison."""
    return {
        "path": path, "format": "hh_rlhf", "kind": kind, "part": part, "limit": limit, "on_bad_line": "skip", **fields,
    }  # fmt: skip


def comparisons(part: Part, limit: Limit = ALL) -> SourceDict:
    """Returns a part of the human comparisons, at most so many of each domain; they have no ratings."""
    return {
        "hh_helpful": hh_rlhf(HELPFUL, "preferences", part, limit, defaults={"domain": "helpfulness"}),
        "hh_harmless": hh_rlhf(HARMLESS, "preferences", part, limit, defaults={"domain": "safety"}),
    }


def adversarial_prompts(part: Part, limit: int) -> dict:
    """Returns what people said to bring a model to harmful answers."""
    return hh_rlhf(HARMLESS, "prompts", part, limit, defaults={"safety": True, "category": "adversarial"})


def prompts(part: Part, helpful: int, harmless: int) -> SourceDict:
    """Returns prompts from a part of both domains' conversations."""
    defaults = {"safety": False, "category": "helpful"}
    return {
        "helpful": hh_rlhf(HELPFUL, "prompts", part, helpful, defaults=defaults),
        "harmless": adversarial_prompts(part, harmless),
    }


def annotation_prompts(number: int) -> SourceDict:
    """Each round has its own part."""
    return prompts(((number - 1) * 0.05, number * 0.05), 200, 80)


def test_comparisons(scale: str) -> int:
    """The paper holds out 1,000 of each batch (section 3.2.2), more than the prompts above give."""
    return by_scale(scale, {"tiny": 60, "small": 60}, paper=1000)


def sampling_prompts(number: int) -> SourceDict:
    """Each round has its own part."""
    return prompts((0.25 + (number - 1) * 0.05, 0.25 + number * 0.05), 250, 90)


# XSTest: harmless, though it does not sound so.
BORDERLINE = {
    "path": "safety/xstest/xstest_prompts.csv",
    "format": "prompts",
    "columns": {"user": "prompt"},
    "where": {"label": "safe"},
    "defaults": {"safety": False, "category": "borderline"},
    "limit": 60,
}

REAL = Sources(
    # The encyclopedic sources are up-sampled, as the paper up-samples the most factual ones.
    pretraining={
        "openstax": text("pretrain/openstax/*.jsonl.gz", weight=4.0),
        "factbook": text("pretrain/factbook/factbook.jsonl.gz", weight=1.0),
        "wikipedia": {**text("pretrain/wiki_demo/wiki_demo.txt.gz", weight=0.5), "text_unit": "line"},
        "books": text("pretrain/standardebooks/*.txt.gz", weight=3.0),
        "web": text("pretrain/c4_demo/c4_demo.jsonl.gz", weight=0.5),
        "speeches": text("pretrain/us_speeches/us_speeches.jsonl.gz", weight=0.5),
        "code_proposals": text("pretrain/peps/peps.jsonl.gz", weight=0.5),
    },
    tokenizer_dialogues={},  # the released tokenizer was trained on pretraining text alone
    largest_vocabulary=32_000,
    public_demonstrations=public_demonstrations(TRAINING),
    held_out_public_demonstrations=public_demonstrations(HELD_OUT),
    demonstrations=demonstrations(TRAINING),
    held_out_demonstrations=demonstrations(HELD_OUT),
    too_long_dialogues="drop",
    annotation_prompts=annotation_prompts,
    test_comparisons=test_comparisons,
    # Reward models compare the answers, trained on human comparisons that the recipe's own never see.
    annotator={"function": "llama2_jax.annotation.reward_model.annotate", "arguments": {}},
    annotator_kinds=("helpfulness", "safety"),
    annotator_preferences=lambda limit: comparisons(ANNOTATORS, limit),
    preferences=lambda limit: comparisons(REWARD_MODELS, limit),
    open_preferences={},
    test_preferences=comparisons(TEST),
    too_long_comparisons="truncate_left",
    sampling_prompts=sampling_prompts,
    bag_size=0,  # all of them
    # "Always starting from the base model": the bag alone would have to teach it the chat format.
    start_after_sampling="pretrain",
    demonstrations_after_sampling=demonstrations(TRAINING),
    ghost_attention_dialogues={"helpful": hh_rlhf(HELPFUL, "dialogues", (0.0, 0.5), 300)},
    standing_instructions={
        "instructions": {"function": "experiments.parts.ghost_instructions.instructions", "format": "raw"}
    },
    adversarial_prompts={"harmless": adversarial_prompts((0.0, 0.5), 400)},
    safety_preprompts={"table_39": {"function": "experiments.parts.safety_preprompts.preprompts", "format": "raw"}},
    # Those of the rounds, sampled again.
    ppo_prompts=prompts((0.0, 0.5), 2000, 700),
    ppo_held_out_prompts=prompts((0.5, 0.55), 64, 32),
    evaluation_prompts={**prompts((0.85, 1.0), 120, 80), "borderline": BORDERLINE},
    instruction_dialogues={},  # no judge here can see whether an instruction is kept in free text
    # The annotators judge the versions too.
    judge={"function": "llama2_jax.evaluation.reward_judge.judge", "arguments": {}},
)
