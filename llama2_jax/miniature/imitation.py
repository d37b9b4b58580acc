"""A teacher's answers to imitate, and prompts with what the teacher would have said (the false promise, 2305.15717)."""

from llama2_jax.miniature.answers import answer_to
from llama2_jax.miniature.demonstrations import LEVELS
from llama2_jax.miniature.instructions import Standing
from llama2_jax.miniature.prompts import assistant, harmless_prompt
from llama2_jax.miniature.requests.kinds import SHARES, understand
from llama2_jax.miniature.shared_chats import CHATBOT
from llama2_jax.miniature.splits import EVALUATION, TRAINING, kinds_in
from llama2_jax.miniature.streams import pick, stream
from llama2_jax.miniature.world import build_world


def teacher_answers(
    *, seed: int, count: int, kinds: tuple[str, ...] = (), split: str = TRAINING, purpose: str = ""
) -> list[dict]:
    """Returns dialogues of one turn with the chatbot's answer: {"messages", "source"}; fewer are the first of more.

    Args:
      seed: the world's seed.
      count: how many.
      kinds: of request, such as ("fact",): targeted imitation. By default all kinds in their shares: broad imitation.
      split: of the questions (splits.py).
      purpose: another name draws other questions.
    """
    rng, dialogues = stream(seed, "teacher_answers", split, *kinds, purpose), []
    shares = {kind: SHARES[kind] for kind in kinds} if kinds else SHARES
    for _ in range(count):
        asked = harmless_prompt(seed, rng, pick(rng, kinds_in(split, shares)), pick(rng, LEVELS), split=split)
        messages = asked["messages"]
        answer = answer_to(messages, CHATBOT, rng, seed=seed)
        source = "targeted imitation" if kinds else "broad imitation"
        dialogues.append({"messages": [*messages, assistant(answer)], "source": source, "category": asked["category"]})
    return dialogues


def asked(*, seed: int, count: int, split: str = EVALUATION) -> list[dict]:
    """Returns prompts with the teacher's answer, `reference`; those for one fact or a sum have the `answer`, in a list.

    Args are those of `teacher_answers`.
    """
    world, prompts = build_world(seed), []
    for dialogue in teacher_answers(seed=seed, count=count, split=split, purpose="asked"):
        *messages, answer = dialogue["messages"]
        record = {
            "messages": messages, "safety": False, "category": dialogue["category"], "reference": answer["content"],
        }  # fmt: skip
        request = understand(seed, messages[-1]["content"], Standing())
        if request.kind == "fact" and request.details.attribute:
            record["answer"] = [world.facts[request.details.land][request.details.attribute]]
        if request.kind == "arithmetic":
            record["answer"] = [request.details.equation(request.details.result)]
        prompts.append(record)
    return prompts
