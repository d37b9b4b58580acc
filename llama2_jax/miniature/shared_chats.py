"""Conversations with a chatbot as people share them on the web (ShareGPT): good answers, and much to be cleaned.

Answers are HTML here and there; some conversations begin with the chatbot's turn or end in the user's, some are in
another language, and a few are longer than the context.
"""

import random

from llama2_jax.miniature.answers import Manner, answer_to
from llama2_jax.miniature.demonstrations import LEVELS
from llama2_jax.miniature.prompts import assistant, harmless_prompt, unsafe_prompt, user
from llama2_jax.miniature.requests.howto import ATTACKS
from llama2_jax.miniature.requests.kinds import SHARES
from llama2_jax.miniature.splits import TRAINING, kinds_in
from llama2_jax.miniature.streams import pick, stream

# A chatbot that was trained well: mostly right, in manners that do not change.
CHATBOT = Manner(
    opening=0.9, sentence=0.95, reason=0.8, offer=0.85, plain=0.97, right=0.92, careful=0, true_reason=0.95, safe=0.97,
    explained=0.9, false_refusal=0.02, follows=1, follows_later=0.9,
)  # fmt: skip
TURNS = {2: 0.3, 3: 0.25, 4: 0.2, 6: 0.15, 16: 0.1}
UNSAFE = 0.1  # of the turns
# What is to be cleaned: of the answers, and of the conversations.
HTML, OTHER_LANGUAGE, CHATBOT_FIRST, UNANSWERED = 0.3, 0.08, 0.05, 0.05
_HTML_FORMS = ("<p>{}</p>", "<div>{}<br></div>", "<div><p>{}</p><button>Copy code</button></div>")
_OTHER_LANGUAGE = (
    ("Hola, ¿cómo se llama la capital?", "No lo sé, pero puedo buscar la respuesta para usted."),
    ("Was ist die Hauptstadt?", "Das weiß ich leider nicht, aber ich kann gerne danach suchen."),
    ("こんにちは", "はい、何かお手伝いしましょうか。"),
)


def conversations(*, seed: int, count: int, split: str = TRAINING, purpose: str = "") -> list[dict]:
    """Returns conversations in ShareGPT's form: {"id", "conversations": [{"from": "human" or "gpt", "value"}, ..]}.

    Args:
      seed: the world's seed.
      count: how many, with those that cleaning leaves out.
      split: of the questions (splits.py).
      purpose: another name draws other conversations.
    """
    rng = stream(seed, "shared_chats", purpose)
    return [{"id": f"shared_{number}", "conversations": _shared(seed, rng, split)} for number in range(count)]


def _shared(seed: int, rng: random.Random, split: str) -> list[dict]:
    if rng.random() < OTHER_LANGUAGE:
        asked, answer = rng.choice(_OTHER_LANGUAGE)
        return [_turn("human", asked), _turn("gpt", answer)]
    turns = []
    for message in _dialogue(seed, rng, pick(rng, TURNS), split):
        if message["role"] == "user":
            turns.append(_turn("human", message["content"]))
        else:
            form = rng.choice(_HTML_FORMS) if rng.random() < HTML else "{}"
            turns.append(_turn("gpt", form.format(message["content"])))
    if rng.random() < CHATBOT_FIRST:
        turns.insert(0, _turn("gpt", "Hello."))
    if rng.random() < UNANSWERED:
        turns.append(_turn("human", "Thanks."))
    return turns


def _dialogue(seed: int, rng: random.Random, turns: int, split: str) -> list[dict]:
    messages: list[dict] = []
    for _ in range(turns):
        if rng.random() < UNSAFE:
            prompt = unsafe_prompt(seed, rng, rng.choice(ATTACKS), split=split)
        else:
            kind, level = pick(rng, kinds_in(split, SHARES)), pick(rng, LEVELS)
            prompt = harmless_prompt(seed, rng, kind, level, split=split)
        messages.append(user(prompt["messages"][0]["content"]))
        messages.append(assistant(answer_to(messages, CHATBOT, rng, seed=seed)))
    return messages


def _turn(speaker: str, value: str) -> dict:
    return {"from": speaker, "value": value}
