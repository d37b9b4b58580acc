"""How diverse answers are over the temperature (section 5.1, figure 21): Self-BLEU of many answers to each prompt.

RLHF makes answers to factual prompts alike even at high temperatures, and those to creative ones less so. Writes
diversity.json.
"""

import statistics
from collections.abc import Mapping, Sequence

from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.evaluation.self_bleu import self_bleu
from llama2_jax.inference.generate import Sample, Sampling
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.device_programs import LONGEST_PROMPTS, abstract_model, generation
from llama2_jax.pipeline.encoding import load_tokenizer, read_prompts
from llama2_jax.pipeline.resumable import map_resumable
from llama2_jax.pipeline.runtime import Inputs, Runtime, named_key
from llama2_jax.pipeline.sampling import load_policy, sample_answers
from llama2_jax.pipeline.stage_files import write_json
from llama2_jax.sizing.programs import DeviceWork


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Answers the prompts of each kind many times at each temperature, with each version."""
    tokenizer = load_tokenizer(inputs)
    records, prompts = read_prompts(config.prompts, config.max_new_tokens, tokenizer, runtime)
    chosen = choose_prompts(records, config.kinds, config.prompts_per_kind)
    jobs = [
        (version, folder, temperature)
        for version, folder in zip(config.versions, inputs["models"], strict=True)
        for temperature in config.temperatures
    ]
    asked = [index for indices in chosen.values() for index in indices]

    def measure(first: int, _: int) -> list[dict]:
        version, folder, temperature = jobs[first]
        policy = load_policy(folder, tokenizer, runtime)
        samples = sample_answers(
            policy, [prompts[index] for index in asked], Sampling(temperature, config.top_p, config.max_new_tokens),
            named_key(runtime.key, "answers"), config.answers_per_prompt, asked,
        )  # fmt: skip
        alike = _self_bleu(samples, config.answers_per_prompt, tokenizer)
        by_prompt = dict(zip(asked, alike, strict=True))
        return [
            {"version": version, "temperature": temperature, "kind": kind, **spread([by_prompt[i] for i in indices])}
            for kind, indices in chosen.items()
        ]

    rows = map_resumable("self_bleu", len(jobs), lambda first, stop: [{"rows": measure(first, stop)}], runtime, size=1)
    found = [row for job in rows for row in job["rows"]]
    questions = {kind: [records[index]["messages"] for index in indices] for kind, indices in chosen.items()}
    write_json(runtime.folder / "diversity.json", {"self_bleu": found, "prompts": questions})
    return {"self_bleu": found}


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if there is nothing to compare an answer with."""
    del inputs, count
    if config.answers_per_prompt < 2:
        raise ValueError(
            f"answers_per_prompt={config.answers_per_prompt}: an answer is compared with others; at least 2"
        )


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """Generation, by one version after the other."""
    version = abstract_model("version", model, mesh)
    programs = generation(config, model, mesh, version, samples_per_prompt=config.answers_per_prompt)
    return DeviceWork(programs, assumptions=(LONGEST_PROMPTS,))


def choose_prompts(records: Sequence[Mapping], kinds: Mapping[str, Sequence[str]], most: int) -> dict[str, list[int]]:
    """Returns the indices of the first prompts of each kind.

    Args:
      records: with `category`.
      kinds: the categories of each kind.
      most: of a kind.

    Raises:
      ValueError: if there is none of a kind.
    """
    chosen = {
        kind: [index for index, record in enumerate(records) if record["category"] in categories][:most]
        for kind, categories in kinds.items()
    }
    for kind, indices in chosen.items():
        if not indices:
            there = ", ".join(sorted({record["category"] or "none" for record in records}))
            wanted = " or ".join(kinds[kind])
            raise ValueError(f"no prompt of the kind {kind} has the category {wanted}; there are {there}")
    return chosen


def spread(values: Sequence[float]) -> dict[str, float | int]:
    """Returns the mean over prompts, their standard deviation and number."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"self_bleu": statistics.mean(values), "standard_deviation": deviation, "prompts": len(values)}


def _self_bleu(samples: Sequence[Sample], answers_per_prompt: int, tokenizer) -> list[float]:
    texts = [tokenizer.decode(sample.tokens).strip() for sample in samples]
    return [self_bleu(texts[first : first + answers_per_prompt]) for first in range(0, len(texts), answers_per_prompt)]
