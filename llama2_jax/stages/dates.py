"""Whether answers fit the year in which a question is posed, by version (section 5.1; figure 22).

Questions about events are posed in years from before the event to after it. From how many years before, and up to when,
does a version say that it has not happened yet? Ordinary prompts say what the training for this costs elsewhere. What
says whether an answer is right, and the judge, are functions that the config names by their dotted paths.

Writes dates.json and answers_<version>.jsonl.
"""

from collections.abc import Mapping, Sequence

from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.evaluation.dates import NOT_YET, best_by_one_year, by_gap
from llama2_jax.evaluation.paired import mean_and_error, paired_difference
from llama2_jax.inference.generate import Sampling
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.device_programs import LONGEST_PROMPTS, abstract_model, generation
from llama2_jax.pipeline.encoding import encode_prompts, load_tokenizer, read_prompts, read_sources, unweighted
from llama2_jax.pipeline.resumable import map_resumable
from llama2_jax.pipeline.runtime import Inputs, Runtime, configured_function, named_key
from llama2_jax.pipeline.sampling import Policy, load_policy, sample_answers
from llama2_jax.pipeline.stage_files import write_json, write_jsonl
from llama2_jax.sizing.programs import DeviceWork

# The name of the ordinary prompts among the sets of questions.
ORDINARY = "ordinary"


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Asks every version the questions, and the ordinary prompts.

    Returns:
      dates: for each version, set and gap the shares of `by_gap`.
      best_by_one_year: of each set, how often one would be `in_time` who knows only the question's year or the event's.
      ordinary: for each version the mean `helpfulness` of its answers to ordinary prompts, its `difference` from the
        first version, paired, both with standard errors, and how many of the `prompts` it answers with "not yet".
    """
    tokenizer = load_tokenizer(inputs)
    asked = {
        name: encode_prompts(_checked(records, name, runtime), config.max_new_tokens, tokenizer, runtime)
        for name, records in read_sources(unweighted(config.questions, runtime), runtime, "prompts").items()
    }
    asked[ORDINARY] = read_prompts(config.prompts, config.max_new_tokens, tokenizer, runtime)
    judges = {
        name: configured_function(config.judge if name == ORDINARY else config.right, inputs, runtime) for name in asked
    }
    jobs = [
        (version, folder, name)
        for version, folder in zip(config.versions, inputs["models"], strict=True)
        for name in asked
    ]

    def answer(first: int, _: int) -> list[dict]:
        version, folder, name = jobs[first]
        rows = _answers(config, load_policy(folder, tokenizer, runtime), name, *asked[name], runtime)
        judged = [{**row, **said} for row, said in zip(rows, judges[name](rows), strict=True)]
        return [{"version": version, "set": name, "rows": [_without(row, "tokens") for row in judged]}]

    answered = map_resumable("answers", len(jobs), answer, runtime, size=1)
    results = {
        "dates": [
            {"version": job["version"], "set": job["set"], **row}
            for job in answered if job["set"] != ORDINARY for row in by_gap(job["rows"])
        ],
        "best_by_one_year": {
            name: best_by_one_year(records) for name, (records, _) in asked.items() if name != ORDINARY
        },
        "ordinary": _ordinary({job["version"]: job["rows"] for job in answered if job["set"] == ORDINARY}),
    }  # fmt: skip
    write_json(runtime.folder / "dates.json", results)
    for version in config.versions:
        write_jsonl(runtime.folder / f"answers_{version}.jsonl", [
            {"set": job["set"], **row} for job in answered if job["version"] == version for row in job["rows"]
        ])  # fmt: skip
    return results


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if there is nothing to ask, or a set has the name of the ordinary prompts."""
    del inputs, count
    if not config.questions:
        raise ValueError("questions is empty: wanted sources of prompts with query_year and event_year, or with dates")
    if ORDINARY in config.questions:
        raise ValueError(f"a set of questions is called {ORDINARY!r}, as the prompts without a date are")


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """Generation, by one version after the other."""
    programs = generation(config, model, mesh, abstract_model("version", model, mesh))
    return DeviceWork(programs, assumptions=(LONGEST_PROMPTS, f"the judge {config.judge.function} is not counted"))


def _checked(records: list[dict], name: str, runtime: Runtime) -> list[dict]:
    for index, record in enumerate(records):
        for field in ("event_year", *(("query_year",) if record.get("query_year") is not None else ())):
            if not isinstance(record.get(field), int):
                raise ValueError(
                    f"{runtime.stage}: question {index} of {name} has {field} {record.get(field)!r}; wanted a year, "
                    "or query_date and event_date (data/dated.py)"
                )
    return records


def _answers(
    config: ConfigDict, policy: Policy, name: str, records: Sequence[dict], prompts: Sequence[list[int]],
    runtime: Runtime,
) -> list[dict]:  # fmt: skip
    """Returns the records, each with the `response` and the `tokens` of prompt and answer."""
    sampling = Sampling(config.temperature, config.top_p, config.max_new_tokens)
    samples = sample_answers(policy, prompts, sampling, named_key(runtime.key, name))
    return [
        {**record, "response": policy.tokenizer.decode(sample.tokens).strip(),
         "tokens": [*map(int, prompt), *map(int, sample.tokens)]}
        for record, prompt, sample in zip(records, prompts, samples, strict=True)
    ]  # fmt: skip


def _ordinary(by_version: Mapping[str, Sequence[Mapping]]) -> list[dict]:
    helpfulness = {version: [float(row["helpfulness"]) for row in rows] for version, rows in by_version.items()}
    first, found = next(iter(helpfulness.values())), []
    for version, rows in by_version.items():
        (mean, error), (difference, its_error) = (
            mean_and_error(helpfulness[version]), paired_difference(helpfulness[version], first)
        )  # fmt: skip
        found.append({
            "version": version, "prompts": len(rows), "helpfulness": mean, "standard_error": error,
            "difference": difference, "difference_standard_error": its_error,
            "not_yet": sum(NOT_YET.search(row["response"]) is not None for row in rows),
        })  # fmt: skip
    return found


def _without(row: Mapping, *names: str) -> dict:
    return {name: value for name, value in row.items() if name not in names}
