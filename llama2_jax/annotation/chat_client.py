"""A language model behind an OpenAI-compatible address: asked with retries, a cache on disk and a budget.

Every answer is kept as a file as soon as it is there, named by what was asked: whoever asks the same again, after a
kill too, gets it from there, and nothing is paid for twice.
"""

import dataclasses
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from etils import epath

from llama2_jax.data.content_hash import content_hash
from llama2_jax.paths import expand_home
from llama2_jax.training.atomic_files import write_atomically

Message = Mapping[str, str]
Asked = TypeVar("Asked")
Found = TypeVar("Found")


class ChatError(RuntimeError):
    """The address does not answer, or refuses to; answers so far are in the cache."""


class BudgetError(RuntimeError):
    """As many answers as the budget allows are in the cache."""


@dataclasses.dataclass(frozen=True)
class ChatModel:
    """What is asked, and how.

    Attributes:
      base_url: the address up to the version, such as https://api.openai.com/v1 or http://127.0.0.1:8000/v1.
      model: the model's name there.
      cache: a folder for the answers, local or gs://; runs and models may share one.
      budget: the most answers of this model that the cache may have; at that number nothing more is asked.
      key_variable: the environment variable with the key, which is written nowhere; "" for an address that needs none.
      temperature, max_tokens: of the answers.
      timeout: seconds until an answer counts as lost.
      retries: how often a request is sent again that is refused for its rate, fails at the server or is lost, after
        pauses that double, or as long as the server says.
      at_once: requests under way at the same time.
    """

    base_url: str
    model: str
    cache: str = "~/.cache/llama2_jax/chat"
    budget: int = 10_000
    key_variable: str = "OPENAI_API_KEY"
    temperature: float = 0.0
    max_tokens: int = 512
    timeout: float = 60.0
    retries: int = 6
    at_once: int = 8


def chat_model(fields: Mapping[str, Any]) -> ChatModel:
    """Returns the ChatModel of a config's fields.

    Raises:
      ValueError: if one is missing, unknown or of another type.
    """
    known = {field.name: field for field in dataclasses.fields(ChatModel)}
    unknown = [name for name in fields if name not in known]
    if unknown:
        raise ValueError(f"chat has no field {', '.join(unknown)}; its fields are {', '.join(known)}")
    for name, field in known.items():
        if name not in fields and field.default is dataclasses.MISSING:
            raise ValueError(f"chat lacks the field {name}, such as {_EXAMPLES[name]}")
        wanted = (int, float) if field.type is float else field.type
        if name in fields and (not isinstance(fields[name], wanted) or isinstance(fields[name], bool)):
            raise ValueError(f"chat.{name} is {fields[name]!r}; wanted {field.type.__name__}")
        if name in _EXAMPLES and not fields[name]:
            raise ValueError(f"chat.{name} is empty; wanted one such as {_EXAMPLES[name]}")
    return ChatModel(**fields)


_EXAMPLES = {"base_url": "http://127.0.0.1:8000/v1", "model": "gpt-4o"}


class ChatClient:
    """Asks a ChatModel; safe to be used by several threads."""

    def __init__(self, model: ChatModel):
        """Raises ImportError without the package `openai`, ValueError without the key."""
        self.model = model
        self._key = _key(model.key_variable)
        self._client = _openai().OpenAI(
            base_url=model.base_url, api_key=self._key or "none", timeout=model.timeout, max_retries=model.retries
        )
        self._folder = epath.Path(expand_home(model.cache)) / content_hash([model.base_url, model.model])
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._asking: dict[str, threading.Lock] = {}
        self._answers = sum(path.suffix == ".json" for path in self._folder.iterdir())

    def ask(self, messages: Sequence[Message]) -> str:
        """Returns the answer to messages, "" where the model refuses to give one.

        Raises:
          BudgetError: if it is not in the cache and the budget is spent.
          ChatError: if the address did not give one after all retries, or does not accept the request.
        """
        request = {
            "model": self.model.model,
            "messages": [dict(message) for message in messages],
            "temperature": self.model.temperature,
            "max_tokens": self.model.max_tokens,
        }
        name = content_hash(request)
        path = self._folder / f"{name}.json"
        with self._lock:
            asking = self._asking.setdefault(name, threading.Lock())
        with asking:  # who asks the same at the same time waits for the answer
            if path.exists():
                return json.loads(path.read_text())["answer"]
            self._spend()
            try:
                answer = self._send(request)
            except BaseException:
                self._give_back()
                raise
            write_atomically(path, json.dumps({"request": request, "answer": answer}))
        return answer

    def each(self, function: Callable[[Asked], Found], items: Sequence[Asked]) -> list[Found]:
        """Returns what a function that asks returns for each item, several at once, in the order of the items.

        The first error stops what has not begun; what is under way is finished, and its answers are kept.
        """
        with ThreadPoolExecutor(max(1, self.model.at_once)) as pool:
            futures = [pool.submit(function, item) for item in items]
            try:
                return [future.result() for future in futures]
            finally:
                for future in futures:
                    future.cancel()

    def _send(self, request: dict[str, Any]) -> str:
        openai = _openai()
        try:
            choices = self._client.chat.completions.create(**request).choices
        except openai.OpenAIError as error:
            raise ChatError(self._without_key(f"{self.model.base_url}, model {self.model.model}: {error}")) from None
        return (choices[0].message.content if choices else None) or ""

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    def _spend(self) -> None:
        with self._lock:
            if self._answers >= self.model.budget:
                raise BudgetError(
                    f"{self.model.base_url}, model {self.model.model}: {self._answers} answers of a budget of "
                    f"{self.model.budget} are in {self._folder}; raise the budget and start again: nothing is asked "
                    "twice"
                )
            self._answers += 1

    def _give_back(self) -> None:
        with self._lock:
            self._answers -= 1


def _openai() -> Any:
    try:
        import openai
    except ImportError:
        raise ImportError(
            "a language model behind an address needs the package openai: pip install -e '.[chat_api]'"
        ) from None
    return openai


def _key(variable: str) -> str:
    if not variable:
        return ""
    if not os.environ.get(variable):
        raise ValueError(
            f"the environment variable {variable} has no key; set it, or give key_variable='' for an address that "
            "needs none"
        )
    return os.environ[variable]
