"""A model for lm-evaluation-harness: its requests answered by our own inference, on any mesh.

    from lm_eval import simple_evaluate
    llama = llama2_jax.load("checkpoints/llama-2-7b")
    simple_evaluate(HarnessModel(llama.config, llama.params, llama.tokenizer), tasks=["hellaswag"])

Requests are tokenized, cut and ended as by the harness's own Hugging Face backend, so the same model has the same
results. With `simple_evaluate(..., apply_chat_template=True)` they are dialogues in the Llama 2 chat format.

Needs the extra "benchmarks".
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from llama2_jax.inference.continuations import score_continuations
from llama2_jax.inference.generate import Sampling
from llama2_jax.inference.score import target_log_probabilities
from llama2_jax.inference.until import generate_until
from llama2_jax.models.config import ModelConfig
from llama2_jax.text.chat_formats import chat_template as template_of
from llama2_jax.text.chat_text import chat_text, encode_chat_text, is_chat_text
from llama2_jax.text.tokenizer import Tokenizer

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError as error:
    raise ImportError(f"benchmarks need the package lm-eval: pip install -e '.[benchmarks]' ({error})") from None

# As many as the harness's Hugging Face backend generates if a task does not say.
MAX_NEW_TOKENS = 256
_GENERATION_FIELDS = ("do_sample", "temperature", "top_p", "until", "max_gen_toks")


class HarnessModel(TemplateLM):
    """A language model as the harness sees it; see the file."""

    def __init__(self, config: ModelConfig, params: Mapping[str, Any], tokenizer: Tokenizer, seed: int = 0):
        """Wraps a model.

        Args:
          config: the language model.
          params: its parameters, on one device or a mesh.
          tokenizer: its tokenizer.
          seed: of what is sampled, where a task samples.
        """
        super().__init__()
        self._config, self._params, self._tokenizer, self._key = config, params, tokenizer, jax.random.key(seed)

    @property
    def eot_token_id(self) -> int:
        return self._tokenizer.end_id

    @property
    def prefix_token_id(self) -> int:
        return self._tokenizer.bos_id

    @property
    def max_length(self) -> int:
        return self._config.max_length

    @property
    def tokenizer_name(self) -> str:
        """By which the harness tells apart what it keeps of requests in a chat format."""
        return "llama2_jax"

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Returns the template of the tokenizer's chat format, for the harness's records."""
        return template_of(self._tokenizer.chat_format) if chat_template else ""

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """Returns a dialogue as a text in the chat format, which `tok_encode` knows by the BOS that it begins with."""
        return chat_text(self._tokenizer, chat_history, open_answer=not add_generation_prompt)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs) -> list[int]:
        """Returns the ids of a text, with BOS before it but where the harness asks for none; or those of a dialogue."""
        del kwargs
        if add_special_tokens is None and is_chat_text(self._tokenizer, string):
            return encode_chat_text(self._tokenizer, string)
        return self._tokenizer.encode(string, bos=add_special_tokens is not False)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs
    ) -> list[tuple[float, bool]]:
        del kwargs
        contexts = [self._cut(context, len(continuation), text) for text, context, continuation in requests]
        scores = score_continuations(
            self._config, self._params, contexts, [continuation for _, _, continuation in requests]
        )
        answers = [(score.log_likelihood, score.is_greedy) for score in scores]
        for (text, _, _), answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", text, answer)
        return answers

    def _cut(self, context: list[int], continuation: int, text: Any) -> list[int]:
        """Returns what fits of a context, its end; the continuation's last token is not read."""
        room = self.max_length + 1 - continuation
        if room < 1:
            raise ValueError(
                f"the continuation {text[1]!r:.80} has {continuation} tokens; the model's context has {self.max_length}"
            )
        return context[-room:]

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Returns the log-likelihood of each whole text, in windows of the model's context."""
        del disable_tqdm
        windows, owners = [], []
        for index, request in enumerate(requests):
            (text,) = request.args
            for window in get_rolling_token_windows(
                self.tok_encode(text), self.prefix_token_id, max_seq_len=self.max_length, context_len=1
            ):
                windows.append(make_disjoint_window(window))
                owners.append(index)
        ids = [(*context, *predicted) for context, predicted in windows]
        scored = target_log_probabilities(
            self._config, self._params, [row[:-1] for row in ids], [row[1:] for row in ids]
        )
        totals = np.zeros(len(requests))
        for owner, (_, predicted), row in zip(owners, windows, scored, strict=True):
            totals[owner] += row[-len(predicted) :].sum(dtype=np.float64)
        for request, total in zip(requests, totals.tolist(), strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals.tolist()

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Returns the answer to each request, up to the first of its stop strings."""
        del disable_tqdm
        texts: dict[int, str] = {}
        for sampling, stops in self._by_sampling(requests).items():
            indices = [*stops]
            prompts = [
                self.tok_encode(requests[index].args[0])[-(self.max_length - sampling.max_new_tokens) :]
                for index in indices
            ]

            def has_ended(prompt: int, tokens: Sequence[int], stops=stops, indices=indices) -> bool:
                text = self._tokenizer.decode(tokens)
                return any(stop in text for stop in stops[indices[prompt]])

            samples = generate_until(
                self._config, self._params, prompts, sampling, self._key, self.eot_token_id, has_ended
            )
            for index, sample in zip(indices, samples, strict=True):
                text = self._tokenizer.decode(sample.tokens)
                texts[index] = postprocess_generated_text(text, stops[index], think_end_token=None)
                self.cache_hook.add_partial("generate_until", requests[index].args, texts[index])
        return [texts[index] for index in range(len(requests))]

    def _by_sampling(self, requests: Sequence[Instance]) -> dict[Sampling, dict[int, list[str]]]:
        """Returns the requests (indices) by how their answers are sampled, each with its stop strings."""
        groups: dict[Sampling, dict[int, list[str]]] = {}
        for index, request in enumerate(requests):
            given = normalize_gen_kwargs(dict(request.args[1]), MAX_NEW_TOKENS)
            unknown = {name: given[name] for name in given if name not in _GENERATION_FIELDS}
            if unknown:
                raise ValueError(
                    f"a task asks for generation with {unknown}; known are {', '.join(_GENERATION_FIELDS)}"
                )
            if given["max_gen_toks"] >= self.max_length:
                raise ValueError(
                    f"a task asks for answers of {given['max_gen_toks']} tokens; the model's context has "
                    f"{self.max_length}, for the prompt too: lower the task's max_gen_toks"
                )
            temperature = given.get("temperature", 0.0) if given.get("do_sample") else 0.0
            sampling = Sampling(float(temperature), float(given.get("top_p", 1.0)), int(given["max_gen_toks"]))
            groups.setdefault(sampling, {})[index] = [stop for stop in given.get("until") or () if stop]
        return groups
