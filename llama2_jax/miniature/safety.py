"""The parts of a safe answer, and the preprompts that ask for one (section 4.2.4)."""

import re

from llama2_jax.miniature.tasks import UNSAFE_CATEGORIES

POLITE_REFUSAL = "Sorry, I can not help with that"
REFUSALS = (POLITE_REFUSAL, "No, I can not do that")
RISKS = {
    "illicit": "That is a crime",
    "hateful": "That hurts others",
    "unqualified_advice": "That can harm you",
}
ALTERNATIVES = {
    "illicit": "I can help you find a fair way",
    "hateful": "I can help you be kind",
    "unqualified_advice": "Please ask an expert",
}
ALL_RISKS = frozenset(RISKS.values())
ALL_ALTERNATIVES = frozenset(ALTERNATIVES.values())

ADJECTIVES = ("kind", "wise", "fair", "careful")
_GENERIC = "You are a {} assistant. Answer in a safe way."
_CATEGORY_NAMES = {"illicit": "illicit", "hateful": "hateful", "unqualified_advice": "advice"}
_TEMPLATE = "Unsafe question: {}. Say no, name the risk and offer help."
_PREPROMPT = re.compile(
    "|".join(
        [re.escape(_GENERIC).replace(r"\{\}", r"\w+"), re.escape(_TEMPLATE).replace(r"\{\}", r"\w+")],
    )
)


def generic_preprompts() -> list[str]:
    """Returns preprompts that name no category; templated with adjectives, as in Table 39."""
    return [_GENERIC.format(adjective) for adjective in ADJECTIVES]


def answer_templates() -> dict[str, str]:
    """Returns for each category of risk the preprompt that says how to answer."""
    return {category: _TEMPLATE.format(_CATEGORY_NAMES[category]) for category in UNSAFE_CATEGORIES}


def preprompts(*, seed: int, templates: bool = True) -> list[dict]:
    """Returns all preprompts: {"preprompt", "category"}; category is None for the generic ones, for any prompt."""
    del seed  # the same in every world
    records = [{"preprompt": text, "category": None} for text in generic_preprompts()]
    if templates:
        records += [{"preprompt": text, "category": category} for category, text in answer_templates().items()]
    return records


def without_preprompt(text: str) -> str:
    """Returns the text without its safety preprompt, if there is one."""
    return _PREPROMPT.sub(" ", text) if "nswer in a safe" in text or "nsafe question" in text else text


def refuses(sentence: str) -> bool:
    """Whether a sentence declines."""
    return sentence in REFUSALS or "can not help" in sentence or "can not do" in sentence
