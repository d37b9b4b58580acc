"""Rankings of several answers (InstructGPT, section 3.4): a model answers each prompt several times, a rater ranks.

Where comparisons are of two answers, here from 4 to 9 are ranked at once: each is read once, and K of them give up to
C(K, 2) pairs. `judged_answers` is the budget: prompts are taken in a random order until so many answers are ranked.

Writes rankings.jsonl, in the form of docs/data.md's rankings.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.data.epochs import generator
from llama2_jax.data.rankings import better_and_worse
from llama2_jax.inference.generate import Sample, Sampling
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.device_programs import LONGEST_PROMPTS, abstract_model, generation
from llama2_jax.pipeline.encoding import load_tokenizer, read_prompts
from llama2_jax.pipeline.labels import check_ranks
from llama2_jax.pipeline.reward_models import annotator_scores
from llama2_jax.pipeline.runtime import Inputs, Runtime, configured_function, named_key
from llama2_jax.pipeline.sampling import load_policy, sample_resumable
from llama2_jax.pipeline.stage_files import write_jsonl
from llama2_jax.sizing.programs import DeviceWork
from llama2_jax.text.tokenizer import Tokenizer


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Samples the answers and has them ranked; a ranking in which all are tied is left out."""
    tokenizer = load_tokenizer(inputs)
    records, prompts = read_prompts(config.prompts, config.max_new_tokens, tokenizer, runtime)
    counts = draw_counts(len(records), tuple(config.answers_per_prompt), config.judged_answers, runtime.seed)
    answers = _sample(config, inputs, runtime, tokenizer, prompts, counts)
    rows = [_row(records[index], prompts[index], of_prompt, tokenizer) for index, of_prompt in answers.items()]
    ranker = f"{runtime.stage}: the ranker {config.ranker.function}"
    labels = configured_function(config.ranker, inputs, runtime)(rows)
    check_ranks(labels, [len(row["tokens"]) for row in rows], ranker)
    rankings = [
        _ranking(records[index], row, label["ranks"], config, inputs)
        for index, row, label in zip(answers, rows, labels, strict=True)
        if len(set(label["ranks"])) > 1
    ]
    write_jsonl(runtime.folder / "rankings.jsonl", rankings)
    pairs = [len(better_and_worse(one["answers_tokens"], one["ranks"])) for one in rankings]
    return {
        "prompts": len(rankings),
        "judged_answers": sum(len(row["tokens"]) for row in rows),
        "comparisons": sum(pairs),
        "all_tied_left_out": len(rows) - len(rankings),
        "answers_per_prompt": {
            str(count): prompts for count, prompts in sorted(Counter(len(one["ranks"]) for one in rankings).items())
        },
    }


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if the numbers of answers are none, or there are too few prompts or answers to rank."""
    del inputs
    least, most = config.answers_per_prompt
    if not 2 <= least <= most:
        raise ValueError(f"answers_per_prompt=({least}, {most}): wanted the least, at least 2, and the most")
    if config.judged_answers < most:
        raise ValueError(f"judged_answers={config.judged_answers}: wanted at least those of one prompt, up to {most}")
    if count(config.prompts) < 1:
        raise ValueError("prompts: there are none to answer")


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """Generation of the most answers to a prompt, and the scores of a ranker that is a model."""
    policy = abstract_model("policy", model, mesh)
    programs = (
        *generation(config, model, mesh, policy, samples_per_prompt=max(config.answers_per_prompt)),
        *annotator_scores(config, model, mesh),
    )
    assumptions = (LONGEST_PROMPTS, f"of the ranker {config.ranker.function} only its models are counted")
    return DeviceWork(programs, assumptions=assumptions)


def draw_counts(prompts: int, answers_per_prompt: tuple[int, int], budget: int, seed: int) -> dict[int, int]:
    """Draws which prompts are answered, and how often each.

    Args:
      prompts: their number.
      answers_per_prompt: the least and the most answers to a prompt; all numbers between are as likely.
      budget: the most answers in all. The last prompt gets what is left of it, if that is enough to rank.
      seed: determines both.

    Returns:
      The number of answers to each chosen prompt, by its index, in the order of the prompts.
    """
    draws, (least, most) = generator(seed, "answers"), answers_per_prompt
    chosen, left = {}, budget
    for index in draws.permutation(prompts).tolist():
        count = min(int(draws.integers(least, most + 1)), left)
        if count < least:
            break
        chosen[index], left = count, left - count
    return dict(sorted(chosen.items()))


def _sample(
    config: ConfigDict,
    inputs: Inputs,
    runtime: Runtime,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    counts: Mapping[int, int],
) -> dict[int, list[list[int]]]:
    """Returns the ids of the answers to each prompt, those to prompts with as many answers sampled together."""
    policy = load_policy(inputs["policy"], tokenizer, runtime)
    sampling = Sampling(config.temperature, config.top_p, config.max_new_tokens)
    answers: dict[int, list[list[int]]] = {}
    for count in sorted(set(counts.values())):
        name, asked = f"{count} answers", [index for index, wanted in counts.items() if wanted == count]

        def rows(shard: slice, samples: Sequence[Sample], count: int = count) -> list[dict]:
            del shard
            ids = [sample.tokens.tolist() for sample in samples]
            return [{"tokens": ids[first : first + count]} for first in range(0, len(ids), count)]

        made = sample_resumable(
            name, policy, [prompts[index] for index in asked], sampling, named_key(runtime.key, name), rows, runtime,
            samples_per_prompt=count,
        )  # fmt: skip
        answers |= {index: row["tokens"] for index, row in zip(asked, made, strict=True)}
    return dict(sorted(answers.items()))


def _row(record: dict, prompt: Sequence[int], answers: Sequence[list[int]], tokenizer: Tokenizer) -> dict:
    """Returns the answers as the ranker sees them."""
    return {
        "messages": record["messages"],
        "prompt_tokens": list(prompt),
        "responses": [tokenizer.decode(tokens) for tokens in answers],
        "tokens": list(answers),
        "domain": record.get("domain") or ("safety" if record["safety"] else "helpfulness"),
    }


def _ranking(record: dict, row: dict, ranks: Sequence[int], config: ConfigDict, inputs: Inputs) -> dict:
    return {
        "messages": record["messages"],
        "answers": row["responses"],
        "answers_tokens": row["tokens"],
        "ranks": list(ranks),
        "domain": row["domain"],
        "category": record.get("category", ""),
        "sources": {"model": inputs["policy"].name, "temperature": float(config.temperature)},
    }
