"""Real data for every scale but tiny: public files under data.root, laid out as docs/data.md says.

Each function returns sources by name; a source is a file (or several) with its layout, or a function. Comparisons are
cut into parts that do not share a conversation: to train reward models, to train the annotators, and to test.
"""

from ml_collections import ConfigDict, FieldReference

from experiments.scales import shared

HELPFUL = "preferences_helpful/hh_rlhf/*/test.jsonl.gz"
HARMLESS = "preferences_safety/hh_rlhf/harmless-base/test.jsonl.gz"
ALL = 1_000_000_000  # a limit that can be turned down


def pretraining() -> dict:
    """Text; the encyclopedic sources are up-sampled, as the paper up-samples the most factual ones."""
    return {
        "openstax": text("pretrain/openstax/*.jsonl.gz", weight=4.0),
        "factbook": text("pretrain/factbook/factbook.jsonl.gz", weight=1.0),
        "wikipedia": {**text("pretrain/wiki_demo/wiki_demo.txt.gz", weight=0.5), "text_unit": "line"},
        "books": text("pretrain/standardebooks/*.txt.gz", weight=3.0),
        "web": text("pretrain/c4_demo/c4_demo.jsonl.gz", weight=0.5),
        "speeches": text("pretrain/us_speeches/us_speeches.jsonl.gz", weight=0.5),
        "code_proposals": text("pretrain/peps/peps.jsonl.gz", weight=0.5),
    }


def text(path: str, weight: float) -> dict:
    """A source of text."""
    return {"path": path, "format": "text", "weight": weight, "limit": ALL}


def tokenizer_dialogues() -> dict:
    """The released tokenizer was trained on pretraining text alone."""
    return {}


def public_demonstrations() -> dict:
    """Public instruction data, for the first fine-tuning."""
    return {
        "dolly": {
            "path": "sft/dolly15k/databricks-dolly-15k.jsonl.gz",
            "format": "dialogues",
            "columns": {"user": "instruction", "context": "context", "assistant": "response"},
            "limit": ALL,
        },
    }


def demonstrations() -> dict:
    """Fewer and better demonstrations, safety ones among them."""
    return {
        "lima": {"path": "sft/lima/lima.json.gz", "format": "alpaca", "limit": ALL},
        "safety": {
            "path": "sft/safety_tuned_llamas/safety_only_data_Instructions.json.gz",
            "format": "alpaca",
            "limit": ALL,
        },
    }


def demonstrations_after_sampling() -> dict:
    """From the base model the bag alone would have to teach the chat format: the demonstrations join it."""
    return demonstrations()


# Where each part of the comparisons lies between 0 and 1 in the order of the conversations' hashes.
PARTS = {"train": (0.0, 0.5), "annotator": (0.5, 0.85), "test": (0.85, 1.0)}


def comparisons(part: str, limit: int | FieldReference = ALL) -> dict:
    """A part of the human comparisons of both domains: "train", "annotator" or "test"; at most so many of each."""
    return {
        "hh_helpful": hh_comparisons(HELPFUL, "helpfulness", PARTS[part], limit),
        "hh_harmless": hh_comparisons(HARMLESS, "safety", PARTS[part], limit),
    }


def hh_comparisons(path: str, domain: str, part: tuple[float, float], limit: int | FieldReference) -> dict:
    """Comparisons of people (Anthropic's HH-RLHF); they carry no ratings."""
    return {
        "path": path,
        "format": "hh_rlhf",
        "kind": "preferences",
        "defaults": {"domain": domain},
        "part": part,
        "limit": limit,
        "on_bad_line": "skip",
    }


def preferences(limit: int | FieldReference) -> dict:
    """Human comparisons that the reward models train on besides the rounds' own."""
    return comparisons("train", limit)


def test_preferences() -> dict:
    """Human comparisons that no model trains on."""
    return comparisons("test")


def open_preferences() -> dict:
    """Open-source comparisons for the mix; none besides the human ones above."""
    return {}


def hh_prompts(path: str, safety: bool, category: str, part: tuple[float, float], limit: int) -> dict:
    """The open turns of HH-RLHF's dialogues as prompts."""
    return {
        "path": path,
        "format": "hh_rlhf",
        "kind": "prompts",
        "defaults": {"safety": safety, "category": category},
        "part": part,
        "limit": limit,
        "on_bad_line": "skip",
    }


def prompts_of_both_kinds(part: tuple[float, float], helpful: int, harmless: int) -> dict:
    """Prompts from a part of the helpful and of the red-teaming dialogues."""
    return {
        "helpful": hh_prompts(HELPFUL, False, "helpful", part, helpful),
        "harmless": hh_prompts(HARMLESS, True, "adversarial", part, harmless),
    }


def annotation_prompts(number: int) -> dict:
    """Prompts whose answers are compared in a round; each round has its own part."""
    return prompts_of_both_kinds(((number - 1) * 0.05, number * 0.05), 200, 80)


def sampling_prompts(number: int) -> dict:
    """Prompts whose best answers are kept in a round."""
    return prompts_of_both_kinds((0.25 + (number - 1) * 0.05, 0.25 + number * 0.05), 250, 90)


def ppo_prompts() -> dict:
    """Prompts of the rounds, sampled again."""
    return prompts_of_both_kinds((0.0, 0.5), 2000, 700)


def ppo_held_out_prompts() -> dict:
    """Prompts that decide when PPO stops."""
    return prompts_of_both_kinds((0.5, 0.55), 64, 32)


def adversarial_prompts() -> dict:
    """Prompts for safety context distillation."""
    return {"harmless": hh_prompts(HARMLESS, True, "adversarial", (0.0, 0.5), 400)}


def safety_preprompts() -> dict:
    """The paper's generic preprompts (table 39)."""
    return {"table_39": {"function": "experiments.safety_preprompts.preprompts", "format": "raw"}}


def ghost_attention_dialogues() -> dict:
    """Dialogues whose user turns are answered under an instruction."""
    return {
        "helpful": {
            "path": HELPFUL,
            "format": "hh_rlhf",
            "kind": "dialogues",
            "part": (0.0, 0.5),
            "limit": 300,
            "on_bad_line": "skip",
        }
    }


def standing_instructions() -> dict:
    """Hobbies, languages and public figures (section 3.3)."""
    return {"instructions": {"function": "experiments.ghost_instructions.instructions", "format": "raw"}}


def instruction_dialogues() -> dict:
    """No judge here can tell whether an instruction is kept in free text, so it is not measured."""
    return {}


def evaluation_prompts() -> dict:
    """Prompts of both kinds that nothing was trained on, and borderline ones (XSTest)."""
    borderline = {
        "path": "safety/xstest/xstest_prompts.csv",
        "format": "prompts",
        "columns": {"user": "prompt"},
        "where": {"label": "safe"},
        "defaults": {"safety": False, "category": "borderline"},
        "limit": 60,
    }
    return {**prompts_of_both_kinds((0.85, 1.0), 120, 80), "borderline": borderline}


def annotator() -> dict:
    """Reward models held apart compare the answers."""
    return {"function": "llama2_jax.annotation.reward_model.annotate", "arguments": {}}


def judge() -> dict:
    """The same models judge the versions."""
    return {"function": "llama2_jax.evaluation.reward_judge.judge", "arguments": {}}


def annotator_inputs() -> dict:
    """The stages that the annotator and the judge read."""
    return {"annotator_helpfulness": "annotator_helpfulness", "annotator_safety": "annotator_safety"}


def add_annotator(config: ConfigDict) -> None:
    """Adds the stages that train the annotators, on human comparisons that the recipe's reward models never see."""
    from experiments.rounds import reward_model

    for kind in ("helpfulness", "safety"):
        config[f"annotator_{kind}"] = {
            "run": "llama2_jax.stages.reward_model",
            "inputs": {"tokenizer": "tokenizer", "start": "sft", "annotations": ()},
            "round": 0,
            **reward_model(config, kind),
        }
        limit = shared(config.reward_models, "human_comparisons")
        config[f"annotator_{kind}"].preferences = comparisons("annotator", limit)
        config.stages = (*config.stages, f"annotator_{kind}")
