"""Generation with tools (section 5.1): a model writes a call, the tool runs, and the model reads its result.

Answers are generated in rounds, all those that go on together. Each ends where it has a call (text/tool_calls.py); the
result is put behind the arrow as tokens that the model did not sample, and the next round goes on from there.
"""

import bisect
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Array, Bool, Int, Key

from llama2_jax.inference.generate import Sampling, check_prompts
from llama2_jax.inference.until import generate_until
from llama2_jax.models.config import ModelConfig
from llama2_jax.text.tokenizer import Tokenizer
from llama2_jax.text.tool_calls import WrittenCall, begun_call, find_call, result_text

# From a query to a result. What it raises is an error that the model reads.
Tool = Callable[[str], str]
# Why a call had no result.
MALFORMED, UNKNOWN_TOOL, FAILED, UNFINISHED = "malformed", "unknown_tool", "failed", "unfinished"


@dataclasses.dataclass(frozen=True)
class ToolCall:
    """A call in an answer.

    Attributes:
      written: as the model wrote it.
      result: what was put behind it, without the quotes, perhaps an error's text; "" if nothing was.
      problem: why there was no result of a tool; "" if there was one.
    """

    written: WrittenCall
    result: str
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class ToolAnswer:
    """An answer with its calls.

    Attributes:
      text: all of it, the results too.
      tokens: all of it, an EOS too.
      injected: which of the tokens are results, that the model read and did not sample.
      calls: in their order.
      finished: whether it ended with the EOS.
    """

    text: str
    tokens: Int[np.ndarray, " length"]
    injected: Bool[np.ndarray, " length"]
    calls: tuple[ToolCall, ...]
    finished: bool


@dataclasses.dataclass(frozen=True)
class ToolLimits:
    """How much tools may add.

    Attributes:
      calls: the most in an answer, which ends with the next one.
      result_characters: a longer result is cut.
    """

    calls: int = 4
    result_characters: int = 400


@dataclasses.dataclass
class _Draft:
    """An answer that is being made; `read` is where its last result ends."""

    tokens: list[int] = dataclasses.field(default_factory=list)
    injected: list[bool] = dataclasses.field(default_factory=list)
    calls: list[ToolCall] = dataclasses.field(default_factory=list)
    read: int = 0
    ended: bool = False
    finished: bool = False

    def add(self, tokens: Sequence[int], injected: bool) -> None:
        self.tokens += tokens
        self.injected += [injected] * len(tokens)


def generate_with_tools(
    config: ModelConfig,
    params: Mapping,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    key: Key[Array, ""],
    tokenizer: Tokenizer,
    tools: Mapping[str, Tool],
    limits: ToolLimits,
) -> list[ToolAnswer]:
    """Answers each prompt, running the tools that the answer calls.

    Args:
      config: the language model.
      params: its parameters; if they are on a mesh, rows are split over it.
      prompts: token ids, which say what the tools are (`tool_calls.tool_prompt`).
      sampling: how tokens are sampled; max_new_tokens is the most of an answer, its results included.
      key: the randomness. An answer does not depend on the other prompts.
      tokenizer: the model's.
      tools: by name. An unknown tool, a malformed call or a tool that raises gives the model an error's text.
      limits: of calls and results.

    Raises:
      ValueError: if a prompt is empty or leaves no room for max_new_tokens.
    """
    check_prompts(prompts, config.max_length, sampling.max_new_tokens)
    drafts, number = [_Draft() for _ in prompts], 0
    while going := [index for index, draft in enumerate(drafts) if not draft.ended]:
        contexts = [[*prompts[index], *drafts[index].tokens] for index in going]
        # As many tokens in every round, so that the rounds share programs; where the context has no room for them,
        # fewer, and an answer that has not ended then goes on in the next round.
        room = min(sampling.max_new_tokens, config.max_length - max(map(len, contexts)))
        left = [sampling.max_new_tokens - len(drafts[index].tokens) for index in going]

        def has_ended(row: int, tokens: Sequence[int], left=left, going=going) -> bool:
            return len(tokens) >= left[row] or find_call(_unread(drafts[going[row]], tokens, tokenizer)) is not None

        samples = generate_until(
            config, params, contexts, dataclasses.replace(sampling, max_new_tokens=room),
            jax.random.fold_in(key, number), tokenizer.end_id, has_ended, going,
        )  # fmt: skip
        for index, most, sample in zip(going, left, samples, strict=True):
            _go_on(drafts[index], sample.tokens[:most].tolist(), tokenizer, tools, limits)
            _end_if_full(drafts[index], sampling.max_new_tokens)
        number += 1
    return [_answer(draft, tokenizer) for draft in drafts]


def _go_on(
    draft: _Draft, tokens: list[int], tokenizer: Tokenizer, tools: Mapping[str, Tool], limits: ToolLimits
) -> None:
    """Adds what was sampled, up to a call and with its result if there is one."""
    call = find_call(_unread(draft, tokens, tokenizer))
    if call is None:
        draft.add(tokens, injected=False)
        draft.ended = draft.finished = tokenizer.end_id in tokens
        return
    # Up to the token that ends the arrow: answers are looked at after every few tokens only.
    sizes = range(len(tokens) + 1)
    size = bisect.bisect_left(sizes, True, key=lambda size: bool(find_call(_unread(draft, tokens[:size], tokenizer))))
    draft.add(tokens[:size], injected=False)
    if len(draft.calls) == limits.calls:
        draft.ended = True
        return
    result, problem = _run(call, tools)
    quoted = result_text(result, limits.result_characters)
    draft.calls.append(ToolCall(call, quoted[1:-1], problem))
    # No text encodes to BOS or EOS. The tokenizer puts a space before a text.
    draft.add(tokenizer.encode(quoted), injected=True)
    draft.read = len(draft.tokens)


def _unread(draft: _Draft, tokens: Sequence[int], tokenizer: Tokenizer) -> str:
    """Returns the text since the last result, with these tokens behind it."""
    return tokenizer.decode([*draft.tokens[draft.read :], *tokens])


def _run(call: WrittenCall, tools: Mapping[str, Tool]) -> tuple[str, str]:
    """Returns the result of a call and what was wrong with it, an error's text being the result then."""
    if not call.well_formed:
        return "error: wanted CALL_API_1: TOOL_NAME | QUERY ->", MALFORMED
    if call.name not in tools:
        return f"error: no tool {call.name}; there are {', '.join(tools)}", UNKNOWN_TOOL
    try:
        return str(tools[call.name](call.query)), ""
    except Exception as error:  # a user's function: whatever it raises, the other answers go on
        return f"error: {str(error) or repr(error)}", FAILED


def _end_if_full(draft: _Draft, most_tokens: int) -> None:
    if len(draft.tokens) >= most_tokens:
        draft.ended = True
        del draft.tokens[most_tokens:], draft.injected[most_tokens:]


def _answer(draft: _Draft, tokenizer: Tokenizer) -> ToolAnswer:
    begun = begun_call(tokenizer.decode(draft.tokens[draft.read :]))
    return ToolAnswer(
        tokenizer.decode(draft.tokens).strip(),
        np.asarray(draft.tokens, np.int32),
        np.asarray(draft.injected, bool),
        (*draft.calls, *((ToolCall(begun, "", UNFINISHED),) if begun else ())),
        draft.finished,
    )
