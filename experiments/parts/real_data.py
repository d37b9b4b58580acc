"""Real data: public sets, read from files under data.root or else from where they are published (docs/data.md).

Each set is cut into parts that do not share a conversation: of the demonstrations one to train and one to measure the
loss, of the comparisons one to train the reward models, one to train the annotators, and one to test. A part is a range
of hashes, so the same conversation is in the same part at every scale, and in the published training and test files.
"""

from experiments.parts.date_sources import real_dates
from experiments.parts.imitation_sources import real_imitation
from experiments.parts.other_recipes import real_recipes
from experiments.parts.safety_files import safety_files
from experiments.parts.sources import Limit, SourceDict, Sources
from experiments.parts.task_sources import real_tasks
from experiments.parts.tool_sources import real_tools

ALL = 1_000_000_000  # a limit that can be turned down
# These make do with little: the published test files of the comparisons, a gigabyte or two of text.
LITTLE = ("tiny", "small")

# Between 0 and 1 in the order of the conversations' hashes.
Part = tuple[float, float]
TRAINING, HELD_OUT = (0.0, 0.98), (0.98, 1.0)
REWARD_MODELS, ANNOTATORS, TEST = (0.0, 0.5), (0.5, 0.85), (0.85, 1.0)

# Commits on the hub. Where there is none, a run reads what is newest when it begins, and records its commit.
HH_RLHF = "hf://datasets/Anthropic/hh-rlhf@d8d97fe9e96fcd19cc8fc31bd04ee393422abfbb"
DOLLY = "hf://datasets/databricks/databricks-dolly-15k@d72c16e4644a463b9c678c71d9440befd4594556"
LIMA = "hf://datasets/habanoz/lima-chat-format"
SAFETY_LLAMAS = "hf://datasets/fedyanin/safety_llamas"
XSTEST = "hf://datasets/walledai/XSTest"
XSTEST_COMPLETIONS = "hf://datasets/natolambert/xstest-v2-copy"
C4 = "hf://datasets/allenai/c4@1ddc917116b730e1859edef32896ec5c16be51d0"
WIKIPEDIA = "hf://datasets/wikimedia/wikipedia"
GUTENBERG = "hf://datasets/sedthh/gutenberg_english"


def few(scale: str, tiny: int) -> int:
    """Returns the most records to take of a file: in tiny no more than a laptop reads in minutes."""
    return tiny if scale == "tiny" else ALL


def of_scale(scale: str, little: int, published: int) -> int:
    """Returns a count: one that the comparisons' test files can give, or from 1b on one of all that is published."""
    return little if scale in LITTLE else published


def text(path: str, weight: float, **fields) -> dict:
    """Returns a source of text."""
    return {"path": path, "format": "text", "weight": weight, "limit": ALL, **fields}


def pretraining(scale: str) -> SourceDict:
    """Returns the text for pretraining; the encyclopedic and other factual sources weigh more, as the paper has it.

    All of it is held in memory, so only some files of the published sets are read.
    """
    c4, wiki, gutenberg = ("0000[0-3]", "0000[0-1]", "00000") if scale in LITTLE else ("0000?", "0000?", "0000[0-3]")
    web = {"path": f"{C4}/en/c4-train.{c4}-of-01024.json.gz", "weight": 8.0}
    wikipedia = {"path": f"{WIKIPEDIA}/20231101.en/train-{wiki}-of-*.parquet", "weight": 2.0, "text_unit": "file"}
    books = {"path": f"{GUTENBERG}/data/train-{gutenberg}-of-*.parquet", "weight": 1.0, "columns": {"text": "TEXT"}}
    large = {
        "wikipedia": text("pretrain/wiki_demo/wiki_demo.txt.gz", weight=0.5, text_unit="line", hub=wikipedia),
        "books": text("pretrain/standardebooks/*.txt.gz", weight=3.0, hub=books),
        "web": text("pretrain/c4_demo/c4_demo.jsonl.gz", weight=0.5, hub=web),
    }
    if scale not in LITTLE:
        return large
    # Not on the hub: a run does without those that are not there.
    return {
        "openstax": text("pretrain/openstax/*.jsonl.gz", weight=4.0, optional=True),
        "factbook": text("pretrain/factbook/factbook.jsonl.gz", weight=1.0, optional=True),
        **large,
        "speeches": text("pretrain/us_speeches/us_speeches.jsonl.gz", weight=0.5, optional=True),
        "code_proposals": text("pretrain/peps/peps.jsonl.gz", weight=0.5, optional=True),
    }


def public_demonstrations(scale: str, part: Part) -> SourceDict:
    """Returns a part of Dolly's instructions."""
    return {
        "dolly": {
            "path": "sft/dolly15k/databricks-dolly-15k.jsonl.gz",
            "hub": {"path": f"{DOLLY}/databricks-dolly-15k.jsonl"},
            "format": "dialogues",
            "columns": {"user": "instruction", "context": "context", "assistant": "response"},
            "part": part,
            "limit": few(scale, 4000),
        },
    }


def with_limit(sources: SourceDict, limit: Limit) -> SourceDict:
    """Returns the sources, at most so many records of each."""
    return {name: {**source, "limit": limit} for name, source in sources.items()}


def demonstrations(scale: str, part: Part, safety_dialogues: int) -> SourceDict:
    """Returns a part of LIMA and of Safety-Tuned LLaMAs."""
    lima = {"path": f"{LIMA}/data/train-*.parquet", "format": "dialogues", "columns": {"messages": "conversation"}}
    safety = {
        "path": f"{SAFETY_LLAMAS}/data/train-*.parquet",
        "format": "dialogues",
        "columns": {"user": "prompt", "assistant": "chosen"},
    }
    paths = {
        "lima": ("sft/lima/lima.json.gz", lima),
        "safety": ("sft/safety_tuned_llamas/safety_only_data_Instructions.json.gz", safety),
    }
    found = {
        name: {"path": path, "hub": hub, "format": "alpaca", "part": part, "limit": ALL}
        for name, (path, hub) in paths.items()
    }
    found["safety"]["limit"] = few(scale, safety_dialogues)
    found["safety"]["defaults"] = {"safety": True}  # what counts as safety data (section 4.2.3)
    return found


def hh_rlhf(scale: str, domain: str, kind: str, part: Part, limit: Limit, **fields) -> dict:
    """Returns a part of the conversations of Anthropic's HH-RLHF; some of its lines hold no comparison.

    From 1b on the training files are read too, where they are; the local files may be the test files alone.
    """
    files = "test.jsonl.gz" if scale in LITTLE else "t*.jsonl.gz"
    folder, local = {
        "helpful": ("helpful-*", "preferences_helpful/hh_rlhf/*"),
        "harmless": ("harmless-base", "preferences_safety/hh_rlhf/harmless-base"),
    }[domain]
    return {
        "path": f"{local}/{files}", "hub": {"path": f"{HH_RLHF}/{folder}/{files}"}, "format": "hh_rlhf", "kind": kind,
        "part": part, "limit": limit, "on_bad_line": "skip", **fields,
    }  # fmt: skip


def comparisons(scale: str, part: Part, limit: Limit = ALL) -> SourceDict:
    """Returns a part of the human comparisons, at most so many of each domain; they have no ratings."""
    return {
        "hh_helpful": hh_rlhf(scale, "helpful", "preferences", part, limit, defaults={"domain": "helpfulness"}),
        "hh_harmless": hh_rlhf(scale, "harmless", "preferences", part, limit, defaults={"domain": "safety"}),
    }


def adversarial_prompts(scale: str, part: Part, limit: int) -> dict:
    """Returns what people said to bring a model to harmful answers."""
    defaults = {"safety": True, "category": "adversarial"}
    return hh_rlhf(scale, "harmless", "prompts", part, limit, defaults=defaults)


def prompts(scale: str, part: Part, helpful: int, harmless: int) -> SourceDict:
    """Returns prompts from a part of both domains' conversations."""
    defaults = {"safety": False, "category": "helpful"}
    return {
        "helpful": hh_rlhf(scale, "helpful", "prompts", part, helpful, defaults=defaults),
        "harmless": adversarial_prompts(scale, part, harmless),
    }


def annotation_prompts(scale: str, number: int) -> SourceDict:
    """Each round has its own part, a twentieth; of what is published 6,200 helpful and 2,200 harmless conversations."""
    part = ((number - 1) * 0.05, number * 0.05)
    return prompts(scale, part, of_scale(scale, 200, 5000), of_scale(scale, 80, 2000))


def test_comparisons(scale: str) -> int:
    """The paper holds out 1,000 of each batch (section 3.2.2), of the 7,000 that the prompts above give."""
    return of_scale(scale, 60, 1000)


def sampling_prompts(scale: str, number: int) -> SourceDict:
    """Each round has its own part."""
    part = (0.25 + (number - 1) * 0.05, 0.25 + number * 0.05)
    return prompts(scale, part, of_scale(scale, 250, 5000), of_scale(scale, 90, 2000))


# XSTest: harmless, though it does not sound so.
BORDERLINE = {
    "path": "safety/xstest/xstest_prompts.csv",
    "hub": {"path": f"{XSTEST}/data/train-*.parquet"},
    "format": "prompts",
    "columns": {"user": "prompt"},
    "where": {"label": "safe"},
    "defaults": {"safety": False, "category": "borderline"},
    "limit": 60,
}
# All of it, by its kinds of prompts ("homonyms").
ALL_BORDERLINE = {
    **{name: BORDERLINE[name] for name in ("path", "hub", "format", "where")},
    "columns": {"user": "prompt", "category": "type"},
    "limit": ALL,
}
# Five models' answers to XSTest's prompts, labelled by people. The patterns of the refusal classifier were written by
# reading the other half (llama2_jax/evaluation/refusals.py).
LABELLED_REFUSALS = {
    "path": "safety/xstest/xstest_v2_completions_*.csv.gz",
    "hub": {"path": f"{XSTEST_COMPLETIONS}/data/[glm]*.parquet"},
    "format": "samples",
    "columns": {"user": "prompt", "response": "completion", "label": "final_label"},
    "part": (0.5, 1.0),
    "limit": ALL,
}


def real_data(scale: str) -> Sources:
    """Returns the data at a scale."""
    return Sources(
        pretraining=pretraining(scale),
        tokenizer_dialogues={},  # the released tokenizer was trained on pretraining text alone
        smallest_vocabulary=2048,
        largest_vocabulary=32_000,
        public_demonstrations=public_demonstrations(scale, TRAINING),
        held_out_public_demonstrations=public_demonstrations(scale, HELD_OUT),
        demonstrations=demonstrations(scale, TRAINING, 800),
        held_out_demonstrations=demonstrations(scale, HELD_OUT, 800),
        too_long_dialogues="drop",
        annotation_prompts=lambda number: annotation_prompts(scale, number),
        test_comparisons=test_comparisons,
        # Reward models compare the answers, trained on human comparisons that the recipe's own never see.
        annotator={"function": "llama2_jax.annotation.reward_model.annotate", "arguments": {}},
        ranker={"function": "llama2_jax.annotation.reward_model.rank", "arguments": {}},
        annotator_kinds=("helpfulness", "safety"),
        annotator_preferences=lambda limit: comparisons(scale, ANNOTATORS, limit),
        preferences=lambda limit: comparisons(scale, REWARD_MODELS, limit),
        open_preferences={},
        test_preferences=comparisons(scale, TEST),
        # The published ones that count as the reward models' own here, without the rounds' comparisons.
        general_preferences=lambda limit: comparisons(scale, REWARD_MODELS, limit),
        general_test_preferences=comparisons(scale, TEST),
        too_long_comparisons="truncate_left",
        sampling_prompts=lambda number: sampling_prompts(scale, number),
        bag_size=0,  # all of them
        # "Always starting from the base model": the bag alone would have to teach it the chat format.
        start_after_sampling="pretrain",
        demonstrations_after_sampling=lambda number: demonstrations(scale, TRAINING, 400),
        ghost_attention_dialogues={"helpful": hh_rlhf(scale, "helpful", "dialogues", (0.0, 0.5), 300)},
        standing_instructions={
            "instructions": {"function": "experiments.parts.ghost_instructions.instructions", "format": "raw"}
        },
        adversarial_prompts={"harmless": adversarial_prompts(scale, (0.0, 0.5), of_scale(scale, 400, 2000))},
        safety_preprompts={"table_39": {"function": "experiments.parts.safety_preprompts.preprompts", "format": "raw"}},
        # Those of the rounds, sampled again; 400 iterations of 512 draw each of the published ones two or three times.
        ppo_prompts=prompts(scale, (0.0, 0.5), of_scale(scale, 2000, 60_000), of_scale(scale, 700, 20_000)),
        ppo_held_out_prompts=prompts(scale, (0.5, 0.55), of_scale(scale, 64, 256), of_scale(scale, 32, 128)),
        evaluation_prompts={
            **prompts(scale, (0.85, 1.0), of_scale(scale, 120, 1000), of_scale(scale, 80, 500)),
            "borderline": BORDERLINE,
        },
        diversity_prompts=public_demonstrations(scale, HELD_OUT),
        diversity_kinds={"factual": ("open_qa",), "creative": ("creative_writing", "brainstorming")},
        safety_files=safety_files(optional=False),
        borderline_prompts={"xstest": ALL_BORDERLINE},
        labelled_refusals={"xstest": LABELLED_REFUSALS},
        instruction_dialogues={},  # no judge here can see whether an instruction is kept in free text
        tools=real_tools(),
        dates=real_dates(),
        imitation=real_imitation(),
        tasks=real_tasks(
            lambda limit: with_limit(public_demonstrations(scale, TRAINING), limit),
            with_limit(public_demonstrations(scale, HELD_OUT), 200),
        ),
        other_recipes=real_recipes(
            demonstrations=public_demonstrations(scale, TRAINING),
            lima=demonstrations(scale, TRAINING, 1)["lima"],
            comparisons=comparisons(scale, REWARD_MODELS),
        ),
        # The annotators judge the versions too.
        judge={"function": "llama2_jax.evaluation.reward_judge.judge", "arguments": {}},
    )
