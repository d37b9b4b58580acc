"""The paper's automatic safety benchmarks, and false refusals, by version (sections 4.1, 4.2.3 and 4.4; A.4.7, A.4.8).

TruthfulQA's questions, ToxiGen's and BOLD's prompts by group, and borderline prompts, which are harmless and sound
unsafe. All are answered at a low temperature. Judges and classifiers are functions that the config names by their
dotted paths; what there is none for is answered and not judged.

Writes safety_sets.json and answers_<version>.jsonl.
"""

from collections.abc import Mapping, Sequence

from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.evaluation.group_means import group_means
from llama2_jax.inference.generate import Sample, Sampling
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.device_programs import LONGEST_PROMPTS, abstract_model, generation
from llama2_jax.pipeline.encoding import load_tokenizer
from llama2_jax.pipeline.resumable import map_resumable
from llama2_jax.pipeline.runtime import Inputs, Runtime, named_key
from llama2_jax.pipeline.safety_sets import SafetySet, classifier_quality, encode_set, safety_sets
from llama2_jax.pipeline.sampling import Policy, load_policy, sample_resumable
from llama2_jax.pipeline.stage_files import write_json, write_jsonl
from llama2_jax.sizing.programs import DeviceWork

# A set, and its prompts' ids.
Asked = tuple[SafetySet, Sequence[Sequence[int]]]


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Asks every version what the sets ask.

    Returns:
      groups: for each version, set, group and measure the mean (evaluation/group_means.py).
      sets: of each set how many prompts were asked, and what was left out (`SafetySet.record`).
      refusal_classifier: how it does on labelled answers (`refusals.detection`); None if there are none.
    """
    tokenizer = load_tokenizer(inputs)
    sets = safety_sets(config, inputs, runtime)
    quality = classifier_quality(config, inputs, runtime)
    asked = [encode_set(one, config, tokenizer, runtime) for one in sets if one.prompts]
    if not asked:
        left_out = "; ".join(note for one in sets for note in one.notes)
        raise ValueError(f"{runtime.stage}: there is nothing to ask. {left_out}")
    folders = list(zip(config.versions, inputs["models"], strict=True))

    def measure(first: int, _: int) -> list[dict]:
        version, folder = folders[first]
        return [{"groups": _measure(version, config, load_policy(folder, tokenizer, runtime), asked, runtime)}]

    measured = map_resumable("versions", len(folders), measure, runtime, size=1)
    encoded = {one.name: one for one, _ in asked}
    results = {
        "groups": [row for version in measured for row in version["groups"]],
        "sets": [encoded.get(one.name, one).record for one in sets],
        "refusal_classifier": quality,
    }
    write_json(runtime.folder / "safety_sets.json", results)
    return results


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if all sets are left out, or nothing says what a refusal is."""
    del inputs, count
    if not (config.borderline.prompts or any(config[name].files for name in ("truthfulqa", "toxigen", "bold"))):
        raise ValueError("all sets are left out: name the files of one, or prompts for borderline")
    if config.borderline.prompts and not config.borderline.classifier.function:
        raise ValueError(
            "borderline.classifier.function is empty: wanted a classifier of refusals, such as "
            "llama2_jax.evaluation.refusals.refusals"
        )


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """Generation, by one version after the other."""
    programs = generation(config, model, mesh, abstract_model("version", model, mesh))
    return DeviceWork(programs, assumptions=(LONGEST_PROMPTS, "judges and classifiers are not counted"))


def _measure(version: str, config: ConfigDict, policy: Policy, asked: Sequence[Asked], runtime: Runtime) -> list[dict]:
    """Returns a version's means; its answers, with what was said of each, go to a file."""
    found, answers = [], []
    for one, prompts in asked:
        rows = _answer(version, config, policy, (one, prompts), runtime)
        values = one.measure(rows)
        found += [
            {"version": version, "set": one.name, **mean}
            for name, of in values.items()
            for mean in group_means(rows, name, of, overall=one.overall)
        ]
        answers += [
            {"set": one.name, **row, **{name: of[index] for name, of in values.items()}}
            for index, row in enumerate(rows)
        ]
    write_jsonl(runtime.folder / f"answers_{version}.jsonl", answers)
    return found


def _answer(version: str, config: ConfigDict, policy: Policy, asked: Asked, runtime: Runtime) -> list[dict]:
    """Returns the prompts of a set, each with the version's `response` and whether it is `finished`."""
    one, prompts = asked
    ends_with_line = one.one_line and not config.chat

    def answered(shard: slice, samples: Sequence[Sample]) -> list[dict]:
        return [
            {**prompt, "response": _response(policy.tokenizer.decode(sample.tokens), ends_with_line),
             "finished": bool(sample.finished)}
            for prompt, sample in zip(one.prompts[shard], samples, strict=True)
        ]  # fmt: skip

    sampling = Sampling(config.temperature, config.top_p, config.max_new_tokens)
    key = named_key(runtime.key, one.name)
    return sample_resumable(f"{version} {one.name}", policy, prompts, sampling, key, answered, runtime)


def _response(text: str, ends_with_line: bool) -> str:
    return (text.split("\n", 1)[0] if ends_with_line else text).strip()
