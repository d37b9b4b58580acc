"""The miniature's data, for the scale tiny: a small world made from the experiment's seed; nothing is downloaded.

Each function returns sources by name; a source names a function by its dotted path.
"""

from ml_collections import ConfigDict, FieldReference

MINIATURE = "llama2_jax.miniature"


def source(function: str, format: str, weight: float = 1.0, **arguments) -> dict:
    """A source made by a function of the miniature."""
    return {"function": f"{MINIATURE}.{function}", "format": format, "weight": weight, "arguments": arguments}


def pretraining() -> dict:
    """The world's text; the weights are what a small model needs to learn each, so numbers weigh most."""
    weights = {
        "encyclopedia": 0.2,
        "howto": 0.13,
        "arithmetic": 0.25,
        "lists": 0.07,
        "stories": 0.15,
        "conversations": 0.2,
    }
    return {
        name: source("corpus.pretraining_text", "text", weight, source=name, documents=3000)
        for name, weight in weights.items()
    }


def tokenizer_dialogues() -> dict:
    """Dialogues, so that the tags of the chat format cost few of the small vocabulary's tokens."""
    return {"dialogues": source("demonstrations.demonstrations", "dialogues", 0.2, count=2000, purpose="tokenizer")}


def public_demonstrations() -> dict:
    """Public instruction data: short answers without manners."""
    return {"public": source("demonstrations.public_demonstrations", "dialogues", count=4000)}


def demonstrations() -> dict:
    """Vendors' demonstrations, of mixed quality."""
    return {"vendor": source("demonstrations.demonstrations", "dialogues", count=6000, instructed=0.2)}


def demonstrations_after_sampling() -> dict:
    """None: in miniature the fine-tuning after rejection sampling starts from a chat model."""
    return {}


def preferences(limit: int | FieldReference) -> dict:
    """No comparisons but the rounds' own."""
    del limit
    return {}


def test_preferences() -> dict:
    """Tests are on what the rounds hold out."""
    return {}


def open_preferences() -> dict:
    """Comparisons as open-source sets have them: coarser, noisier, and some answers are not to the point."""
    made, noise = "demonstrations.open_preferences", 0.12
    return {
        "open_helpfulness": source(
            made, "preferences", domain="helpfulness", count=3000, noise=noise, off_topic=0.45, borderline=0.15
        ),
        "open_safety": source(made, "preferences", domain="safety", count=300, noise=noise, borderline=0.1),
    }


def annotation_prompts(number: int) -> dict:
    """Prompts whose answers are compared in a round, in two campaigns; they grow harder by the round (appendix A.3.2).

    Batches grow too, as the paper's did from 5,561 to 249,356 comparisons (table 26): the closer the answers are, the
    more comparisons it takes to tell them apart. The campaign for safety asks about harmless things that sound unsafe
    too, so that a safety reward model can learn what is not unsafe.
    """
    campaigns = {
        "helpfulness": {"count": (600, 750, 900, 1100, 1400)[number - 1], "unsafe": 0.0, "borderline": 0.2},
        "safety": {"count": (500, 500, 600, 700, 800)[number - 1], "unsafe": 0.5, "borderline": 0.35},
    }
    return {
        domain: {
            **source("prompts.prompts", "prompts", batch=number, purpose=f"{domain} campaign", **shares),
            "defaults": {"domain": domain},
        }
        for domain, shares in campaigns.items()
    }


def sampling_prompts(number: int) -> dict:
    """Prompts whose best answers are kept in a round."""
    return {
        "prompts": source("prompts.prompts", "prompts", batch=number, count=1000, borderline=0.12, purpose="sampling")
    }


def ppo_prompts() -> dict:
    """Prompts of PPO, as hard as the last round's; many that only sound unsafe, since refusals spread easily."""
    shares = {"unsafe": 0.1, "borderline": 0.2}
    return {"prompts": source("prompts.prompts", "prompts", batch=5, count=2000, purpose="ppo", **shares)}


def ppo_held_out_prompts() -> dict:
    """Prompts that decide when PPO stops."""
    shares = {"unsafe": 0.1, "borderline": 0.2}
    return {"prompts": source("prompts.prompts", "prompts", batch=5, count=128, purpose="ppo held out", **shares)}


def adversarial_prompts() -> dict:
    """Prompts for safety context distillation: unsafe ones alone."""
    return {
        "prompts": source(
            "prompts.prompts", "prompts", batch=5, count=250, unsafe=1.0, borderline=0.0, purpose="distillation"
        )
    }


def safety_preprompts() -> dict:
    """Generic preprompts and answer templates by risk category."""
    return {"preprompts": source("safety.preprompts", "raw")}


def ghost_attention_dialogues() -> dict:
    """What users say in dialogues with a standing instruction, each with its instruction."""
    return {"dialogues": source("instructed.ghost_attention_dialogues", "raw", count=400)}


def standing_instructions() -> dict:
    """None besides: the dialogues bring theirs."""
    return {}


def instruction_dialogues() -> dict:
    """Dialogues of six turns with an instruction; its words are known, since what is measured is whether it lasts."""
    return {"dialogues": source("instructed.instruction_dialogues", "raw", count=64, split="train")}


def evaluation_prompts() -> dict:
    """Prompts of all kinds, levels, categories and attacks alike."""
    return {"prompts": source("prompts.evaluation_prompts", "prompts", count=500)}


def annotator() -> dict:
    """Raters who know the truth and are not always of the same mind."""
    return {"function": f"{MINIATURE}.annotator.annotate", "arguments": {}}


def judge() -> dict:
    """The truth."""
    return {"function": f"{MINIATURE}.judge.judge_many", "arguments": {}}


def annotator_inputs() -> dict:
    """The annotator needs no trained model."""
    return {}


def add_annotator(config: ConfigDict) -> None:
    """The annotator needs no stages."""
    del config
