"""Versions answer the same prompts, and a judge looks at the answers: an evaluation without reward models.

For models that no reward model was trained for, such as those in another chat format than the recipe's. The judge may
be models that read a format of their own: the input `judge_tokenizer` has it.

Writes evaluation.json and answers_<version>.jsonl, as stages/evaluate.py does.
"""

from collections.abc import Mapping, Sequence

from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.data.sources import load_function
from llama2_jax.evaluation.measures import Measure, to_json
from llama2_jax.evaluation.paired import paired_difference
from llama2_jax.evaluation.verdicts import by_category, count_judged, mean_known, not_judged, summarise, utilities
from llama2_jax.inference.generate import Sampling
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.device_programs import LONGEST_PROMPTS, abstract_model, generation
from llama2_jax.pipeline.encoding import load_tokenizer, read_prompts
from llama2_jax.pipeline.judged_answers import (
    Prompts,
    check_baseline,
    compare_in_order,
    judged_answers,
    load_judge,
    load_reader,
    with_win_rates,
)
from llama2_jax.pipeline.resumable import map_resumable
from llama2_jax.pipeline.reward_models import annotator_scores
from llama2_jax.pipeline.runtime import Inputs, Runtime, named_key
from llama2_jax.pipeline.sampling import load_policy
from llama2_jax.pipeline.stage_files import write_json, write_jsonl
from llama2_jax.sizing.programs import DeviceWork


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Evaluates the versions in order.

    Returns:
      versions: for each the `measures`; its win rates over the baseline and over the version before it; and
        `difference`, the mean of its helpfulness less the baseline's on unseen harmless prompts, with its paired
        `standard_error` and the number of `answers`.
    """
    tokenizer, reader = load_tokenizer(inputs), load_reader(inputs)
    records, ids = read_prompts(config.prompts, config.max_new_tokens, tokenizer, runtime)
    asked = Prompts([{**record, "seen": bool(record.get("seen"))} for record in records], ids)
    measures = load_function(config.measures)
    judge = load_judge(config.judge, inputs, runtime, measures)
    sampling = Sampling(config.temperature, config.top_p, config.max_new_tokens)
    folders = list(zip(config.versions, inputs["models"], strict=True))

    def measure(first: int, _: int) -> list[dict]:
        name, folder = folders[first]
        policy, key = load_policy(folder, tokenizer, runtime), named_key(runtime.key, "answers")
        rows = judged_answers(f"{name} answers", policy, asked, sampling, key, judge, runtime, reader)
        write_jsonl(runtime.folder / f"answers_{name}.jsonl", rows)
        return [_measured(asked.records, rows, measures)]

    measured = map_resumable("versions", len(folders), measure, runtime, size=1)
    ours = {name: version.pop("utilities") for name, version in zip(config.versions, measured, strict=True)}
    rates = compare_in_order(config.versions, config.baseline, ours, asked.records)
    versions = [
        with_win_rates(
            {"name": name, **version, "difference": _difference(asked.records, ours[name], ours[config.baseline])}, rate
        )
        for name, version, rate in zip(config.versions, measured, rates, strict=True)
    ]
    seen = sum(record["seen"] for record in asked.records)
    described = {"prompts": len(asked.records), "seen_prompts": seen, "measures": to_json(measures)}
    write_json(runtime.folder / "evaluation.json", {"versions": versions, **described})
    return {"versions": versions}


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if the baseline is none of the versions."""
    del inputs, count
    check_baseline(config)


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """Generation by one version after the other, and scores by the models of a judge."""
    version = abstract_model("version", model, mesh)
    programs = (*generation(config, model, mesh, version), *annotator_scores(config, model, mesh, (version,)))
    judged = f"of the judge {config.judge.function} only its models are counted"
    return DeviceWork(programs, assumptions=(LONGEST_PROMPTS, judged))


def _measured(records: Sequence[dict], rows: Sequence[Mapping], measures: Sequence[Measure]) -> dict:
    verdicts = [row["verdict"] for row in rows]
    return {
        "utilities": utilities(records, verdicts),
        **summarise(records, verdicts, measures),
        "judged": count_judged(records, verdicts, measures),
        "categories": by_category(records, verdicts, measures),
        "notes": not_judged(records, verdicts, measures),
        "answer_tokens": mean_known([row for row in rows if not row["seen"]], "answer_tokens"),
    }


def _difference(records: Sequence[dict], ours: Sequence, baseline: Sequence) -> dict[str, float | int | None]:
    pairs = [
        (one, other)
        for record, one, other in zip(records, ours, baseline, strict=True)
        if not record["safety"] and not record["seen"] and one is not None and other is not None
    ]
    mean, error = paired_difference(*zip(*pairs, strict=True)) if pairs else (None, None)
    return {"mean": mean, "standard_error": error, "answers": len(pairs)}
