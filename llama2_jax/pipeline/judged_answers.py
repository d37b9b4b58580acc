"""Answers to a stage's prompts with a judge's verdicts on them, and what versions reach by these verdicts."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from llama2_jax.evaluation.measures import Measure
from llama2_jax.evaluation.verdicts import check_verdicts
from llama2_jax.evaluation.win_rate import WinRate, win_rates
from llama2_jax.inference.generate import Sample, Sampling
from llama2_jax.pipeline.runtime import Inputs, Runtime, configured_function
from llama2_jax.pipeline.sampling import Policy, sample_resumable
from llama2_jax.text.dialogue import encode_with_answer
from llama2_jax.text.tokenizer import Tokenizer

Judge = Callable[[Sequence[dict]], Sequence[dict | None]]


class Prompts(NamedTuple):
    """What is asked: records with `messages`, and their token ids (`encoding.encode_prompts`)."""

    records: Sequence[dict]
    ids: Sequence[Sequence[int]]


def load_judge(part: ConfigDict, inputs: Inputs, runtime: Runtime, measures: Sequence[Measure]) -> Judge:
    """Returns the judge that a config names: rows with `messages` and `response` -> a checked verdict for each.

    Args:
      part: of the config: `function` and `arguments`.
      inputs, runtime: the stage's.
      measures: what is made of the verdicts.
    """
    judge = configured_function(part, inputs, runtime)
    # What win rates and kept instructions read, and what the measures read.
    fields = {"helpfulness", "safety", "instruction_kept", *(one.verdict for one in measures if one.verdict)}

    def checked(rows: Sequence[dict]) -> Sequence[dict | None]:
        verdicts = judge(rows)
        check_verdicts(verdicts, len(rows), sorted(fields), f"{runtime.stage}: the judge {part.function}")
        return verdicts

    return checked


def load_reader(inputs: Inputs) -> Tokenizer | None:
    """Returns the tokenizer of the stage's input "judge_tokenizer", in whose format the judge's models read."""
    return Tokenizer.load(inputs["judge_tokenizer"] / "tokenizer.model") if "judge_tokenizer" in inputs else None


def judged_answers(
    name: str, policy: Policy, asked: Prompts, sampling: Sampling, key: jax.Array, judge: Judge, runtime: Runtime,
    reader: Tokenizer | None = None,
) -> list[dict]:  # fmt: skip
    """Samples an answer to each prompt and has it judged; the answers are saved shard by shard (resumable.py).

    Args:
      name: of the work, unique within the stage.
      policy: what answers.
      asked: the prompts.
      sampling, key: how, and with what randomness.
      judge: from `load_judge`; it also sees the `tokens` of prompt and answer, for judges that are models.
      runtime: the stage's.
      reader: encodes these tokens, of models that read another chat format than the policy's; by default they are the
        policy's own.

    Returns:
      The records, each with `response`, `finished`, `answer_tokens` and the `verdict`.
    """

    def rows(shard: slice, samples: Sequence[Sample]) -> list[dict]:
        return [
            {
                **record,
                "response": policy.tokenizer.decode(sample.tokens).strip(),
                "finished": bool(sample.finished),
                "answer_tokens": len(sample.tokens),
                "tokens": [*map(int, prompt), *sample.tokens.tolist()],
            }
            for record, prompt, sample in zip(asked.records[shard], asked.ids[shard], samples, strict=True)
        ]

    answered = sample_resumable(name, policy, asked.ids, sampling, key, rows, runtime)
    if reader is not None:
        answered = [{**row, "tokens": _read(row, reader, runtime.model.max_length)} for row in answered]
    verdicts = judge(answered)
    return [
        {**{field: value for field, value in row.items() if field != "tokens"}, "verdict": verdict}
        for row, verdict in zip(answered, verdicts, strict=True)
    ]


def check_baseline(config: ConfigDict) -> None:
    """Raises ValueError if the version that the others are compared with is none of them."""
    if config.baseline not in config.versions:
        raise ValueError(f"baseline={config.baseline!r}: choose one of the versions, {', '.join(config.versions)}")


def compare_in_order(
    versions: Sequence[str], baseline: str, ours: Mapping[str, Sequence], records: Sequence[dict]
) -> list[dict[str, WinRate]]:
    """Returns each version's win rates over the baseline, by measure, and over the version before it.

    Args:
      versions: in order.
      baseline: one of them.
      ours: by version its `verdicts.utilities`.
      records: the prompts.
    """
    found, previous = [], None
    for name in versions:
        rates = win_rates(ours[name], ours[baseline], records)
        before = win_rates(ours[name], previous, records)[""] if previous else WinRate(0, 0, 0)
        found.append(
            {f"{prompts}win_rate_vs_sft": rate for prompts, rate in rates.items()} | {"win_rate_vs_previous": before}
        )
        previous = ours[name]
    return found


def with_win_rates(version: dict, rates: dict[str, WinRate]) -> dict:
    """Returns a version's measures with its win rates and the numbers of prompts that they are over."""
    return {
        **version,
        **{name: rate.rate for name, rate in rates.items()},
        "win_rate_standard_error": rates["win_rate_vs_sft"].standard_error,
        "win_rate_vs_previous_standard_error": rates["win_rate_vs_previous"].standard_error,
        "judged": {**version["judged"], **{name: rate.prompts for name, rate in rates.items()}},
    }


def _read(row: Mapping, reader: Tokenizer, longest: int) -> list[int]:
    """Returns a row's prompt and answer in the reader's format: of what is too long for the context, the end."""
    end = [reader.end_id] * row["finished"]
    answer = [*reader.encode(row["response"]), *end] or [reader.end_id]
    return encode_with_answer(reader, row["messages"], answer).tokens.tolist()[-longest:]
