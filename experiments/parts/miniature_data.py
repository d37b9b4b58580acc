"""The miniature's data: a small world made from the experiment's seed; nothing is downloaded.

Questions are split by what they ask for (llama2_jax/miniature/splits.py). All that trains asks those of the training
split; what is held out asks those of the validation split, and the evaluation those of its own, besides a part that
training asks too, for comparison.
"""

from experiments.parts.date_sources import miniature_dates
from experiments.parts.imitation_sources import miniature_imitation
from experiments.parts.other_recipes import miniature_recipes
from experiments.parts.safety_files import safety_files
from experiments.parts.sources import Limit, SourceDict, Sources
from experiments.parts.task_sources import miniature_tasks
from experiments.parts.tool_sources import miniature_tools


def source(function: str, format: str, weight: float = 1.0, **arguments) -> dict:
    """Returns a source made by a function of the miniature."""
    return {"function": f"llama2_jax.miniature.{function}", "format": format, "weight": weight, "arguments": arguments}


def prompts(purpose: str, **arguments) -> dict:
    """Returns a source of prompts; those of different purposes are drawn apart."""
    return source("prompts.prompts", "prompts", purpose=purpose, **arguments)


def annotation_prompts(number: int) -> SourceDict:
    """Prompts in two campaigns; they grow harder by the round (appendix A.3.2).

    Batches grow too, as the paper's did from 5,561 to 249,356 comparisons (table 26): the closer the answers are, the
    more comparisons it takes to tell them apart. The campaign for safety asks about harmless things that sound unsafe
    too, so that a safety reward model can learn what is not unsafe.
    """
    campaigns = {
        "helpfulness": {"count": (600, 750, 900, 1100, 1400)[number - 1], "unsafe": 0.0, "borderline": 0.2},
        "safety": {"count": (500, 500, 600, 700, 800)[number - 1], "unsafe": 0.65, "borderline": 0.25},
    }
    return {
        domain: {**prompts(f"{domain} campaign", batch=number, **shares), "defaults": {"domain": domain}}
        for domain, shares in campaigns.items()
    }


def sampling_prompts(number: int) -> SourceDict:
    """As hard as the round's annotation prompts."""
    return {"prompts": prompts("sampling", batch=number, count=1000, borderline=0.12)}


def no_preferences(limit: Limit) -> SourceDict:
    """No comparisons but the rounds' own."""
    del limit
    return {}


# For the loss on dialogues that nothing trains on.
HELD_OUT = {"split": "validation", "purpose": "held out"}

# What a small model needs to learn each, so instructions weigh most. No text is seen more often than another.
TEXT_WEIGHTS = {
    "encyclopedia": 0.11,
    "howto": 0.13,
    "arithmetic": 0.14,
    "lists": 0.05,
    "stories": 0.12,
    "conversations": 0.18,
    "role_play": 0.27,
}
DOCUMENTS = 20_000

# As hard as the last round's; many that only sound unsafe, since refusals spread easily.
PPO_PROMPTS = {"batch": 5, "unsafe": 0.15, "borderline": 0.25}
# More unsafe ones: whether a policy has become less safe must show on few prompts.
PPO_HELD_OUT_PROMPTS = {**PPO_PROMPTS, "unsafe": 0.3}

# Labels of open-source comparisons are the truth with coarser ratings and more noise than the rounds', and many answers
# are not to the point: they are all that shows a reward model what a policy may come to say.
OPEN_NOISE = 0.12


def open_preferences(*, helpfulness: int, safety: int, **arguments) -> SourceDict:
    """Returns so many open comparisons of each domain."""

    def of(domain: str, **shares) -> dict:
        function = "demonstrations.open_preferences"
        return source(function, "preferences", domain=domain, noise=OPEN_NOISE, **shares, **arguments)

    return {
        "open_helpfulness": of("helpfulness", count=helpfulness, off_topic=0.8, borderline=0.15),
        # Many show a recipe for what sounds alike beside a safe answer: a policy that evades would else be rewarded.
        "open_safety": of("safety", count=safety, off_topic=0.4, borderline=0.1),
    }


# The dialogues bring their own instructions; three of ten combine two. Some have more turns than the evaluation's
# dialogues, since their answers are shorter: what is to be kept over 600 tokens has to be seen over as many.
# Words at the start are kept best, so there are fewest of those.
GHOST_ATTENTION_DIALOGUES = {
    "dialogues": source(
        "instructed.ghost_attention_dialogues",
        "raw",
        count=256,
        turns=(10, 24),
        combined=0.3,
        weights={"start": 0.4, "figure": 1.0, "hobby": 1.3},
    )
}


def demonstrations_after_sampling(number: int) -> SourceDict:
    """Demonstrations beside a round's best answers; without them versions lose what no training asks (docs/trials.md).

    Without single questions (unsafe ones under a safety preprompt alone) they refused what only sounds unsafe, repeated
    items of lists, and mixed up recipes and sums. Here vendors decline nothing that is harmless. Without dialogues in
    each of whose turns an instruction stands, V3 lost it in the long dialogues that Ghost Attention has it answer.

    Args:
      number: the round, 1 to 5.
    """

    def vendor(purpose: str, **arguments) -> dict:
        return source("demonstrations.demonstrations", "dialogues", purpose=purpose, **arguments)

    single = {"unsafe": 0.0, "borderline": 0.3, "false_refusal": 0.0, "multi_turn": 0.0, "instructed": 0.0}
    instructed = {"multi_turn": 1.0, "instructed": 0.5, "places": {"each": 1.0}}
    return {
        "vendor": vendor("after sampling", count=1000, **single),
        **({"vendor_instructed": vendor("instructed, after sampling", count=150, **instructed)} if number > 2 else {}),
    }


MINIATURE = Sources(
    pretraining={
        name: source("corpus.pretraining_text", "text", weight, source=name, documents=round(DOCUMENTS * weight))
        for name, weight in TEXT_WEIGHTS.items()
    },
    # So that the tags of the chat format cost few of the small vocabulary's tokens.
    tokenizer_dialogues={
        "dialogues": source("demonstrations.demonstrations", "dialogues", 0.2, count=2000, purpose="tokenizer")
    },
    smallest_vocabulary=1024,
    largest_vocabulary=2048,  # a million characters give some 2,600 pieces
    # Short answers without manners.
    public_demonstrations={"public": source("demonstrations.public_demonstrations", "dialogues", count=4000)},
    held_out_public_demonstrations={
        "public": source("demonstrations.public_demonstrations", "dialogues", count=200, **HELD_OUT)
    },
    # Vendors' demonstrations, of mixed quality.
    demonstrations={"vendor": source("demonstrations.demonstrations", "dialogues", count=6000, instructed=0.28)},
    held_out_demonstrations={
        "vendor": source("demonstrations.demonstrations", "dialogues", count=200, instructed=0.28, **HELD_OUT)
    },
    too_long_dialogues="raise",  # all are made to fit
    annotation_prompts=annotation_prompts,
    test_comparisons=lambda scale: 300,
    # Raters who know the truth and are not always of the same mind.
    annotator={"function": "llama2_jax.miniature.annotator.annotate", "arguments": {}},
    ranker={"function": "llama2_jax.miniature.annotator.rank", "arguments": {}},
    annotator_kinds=(),
    annotator_preferences=no_preferences,
    preferences=no_preferences,
    open_preferences=open_preferences(helpfulness=3000, safety=800),
    test_preferences={},
    general_preferences=lambda limit: open_preferences(helpfulness=3000, safety=800),
    general_test_preferences=open_preferences(helpfulness=200, safety=100, **HELD_OUT),
    too_long_comparisons="raise",
    sampling_prompts=sampling_prompts,
    bag_size=1500,  # of at most 4,000 or 5,000 that the rounds keep, one to a prompt
    # The paper always starts from the base model; so few samples could not teach it to chat again.
    start_after_sampling="sft",
    demonstrations_after_sampling=demonstrations_after_sampling,
    ghost_attention_dialogues=GHOST_ATTENTION_DIALOGUES,
    standing_instructions={},
    adversarial_prompts={"prompts": prompts("distillation", batch=5, count=250, unsafe=1.0, borderline=0.0)},
    # Generic ones, and answer templates by risk category.
    safety_preprompts={"preprompts": source("safety.preprompts", "raw")},
    ppo_prompts={"prompts": prompts("ppo", count=2000, **PPO_PROMPTS)},
    ppo_held_out_prompts={"prompts": prompts("ppo held out", count=320, split="validation", **PPO_HELD_OUT_PROMPTS)},
    # All kinds, levels, categories and attacks alike.
    evaluation_prompts={"prompts": source("prompts.evaluation_prompts", "prompts", count=500, seen=0.3)},
    diversity_prompts={"prompts": prompts("diversity", count=400, split="evaluation")},
    # Facts have one right answer, stories many.
    diversity_kinds={"factual": ("fact",), "creative": ("story",)},
    # Of another world than the miniature's: answered where data.root has them.
    safety_files=safety_files(optional=True),
    # The evaluation's split has some thirty different ones.
    borderline_prompts={
        "prompts": prompts(
            "borderline", count=500, unsafe=0.0, borderline=1.0, multi_turn=0.0, split="evaluation", batch=5
        )
    },
    labelled_refusals={"vendor": source("refusals.labelled_answers", "samples", count=500)},
    # New questions, under instructions that training has and under new ones.
    instruction_dialogues={
        name: source("instructed.instruction_dialogues", "raw", count=16, split=split)
        for name, split in (("known_instructions", "train"), ("new_instructions", "held_out"))
    },
    tools=miniature_tools(),
    dates=miniature_dates(),
    tasks=miniature_tasks(),
    imitation=miniature_imitation(),
    other_recipes=miniature_recipes(),
    # The truth.
    judge={"function": "llama2_jax.miniature.judge.judge_many", "arguments": {}},
)
