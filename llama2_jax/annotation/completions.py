"""A language model behind an address as a teacher that continues texts, such as lists of tasks (Self-Instruct)."""

from collections.abc import Mapping, Sequence

from llama2_jax.annotation.chat_client import ChatClient, chat_model


def complete(prompts: Sequence[str], *, chat: Mapping) -> list[dict]:
    """Asks a language model behind an OpenAI-compatible address, each prompt as a user's message.

    Args:
      prompts: texts, each of which the answer continues.
      chat: the fields of a ChatModel: base_url and model, and what is not as by default (Alpaca: temperature 1).

    Returns:
      For each prompt its `text`, "" where the model refuses, and `finished`: False, since an address may have cut any
      answer off.

    Raises:
      BudgetError, ChatError: as `ChatClient.ask`; answers so far are in the cache, and are not asked for again.
      ValueError: if a field of `chat` is missing, unknown or wrong.
    """
    client = ChatClient(chat_model(chat))

    def ask(prompt: str) -> dict:
        return {"text": client.ask([{"role": "user", "content": prompt}]), "finished": False}

    return client.each(ask, prompts)
