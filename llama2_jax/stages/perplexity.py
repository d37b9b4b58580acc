"""How likely versions find answers that people wrote: perplexity, clipped (GPT4All's evaluation).

GPT4All compares models by their ground-truth perplexity on a set of instructions with answers; a few answers that a
model finds absurd would decide a mean, so that of an answer is clipped at 100. Writes perplexity.json.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.evaluation.paired import mean_and_error, paired_difference
from llama2_jax.inference.score import target_log_probabilities
from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.device_programs import abstract_model, score_log_probabilities
from llama2_jax.pipeline.encoding import load_tokenizer, read_records
from llama2_jax.pipeline.resumable import map_resumable
from llama2_jax.pipeline.runtime import Inputs, Runtime
from llama2_jax.pipeline.sampling import Policy, load_policy
from llama2_jax.pipeline.stage_files import write_json
from llama2_jax.sizing.programs import DeviceWork
from llama2_jax.text.dialogue import EncodedDialogue, encode_dialogue


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Returns for each version, as `perplexity`, the mean over dialogues and its difference from the first version."""
    tokenizer = load_tokenizer(inputs)
    encoded = [
        encode_dialogue(tokenizer, record["messages"]) for record in read_records(config.sources, runtime, "dialogues")
    ]
    fitting = [one for one in encoded if len(one.tokens) <= runtime.model.max_length and one.loss_mask.any()]
    if not fitting:
        raise ValueError(f"{runtime.stage}: none of {len(encoded)} dialogues fits {runtime.model.max_length} tokens")
    folders = inputs["models"]

    def measure(first: int, _: int) -> list[dict]:
        return [{"perplexities": perplexities(load_policy(folders[first], tokenizer, runtime), fitting)}]

    measured = map_resumable("versions", len(folders), measure, runtime, size=1)
    found = dict(zip(config.versions, (row["perplexities"] for row in measured), strict=True))
    write_json(runtime.folder / "perplexity.json", found)
    clipped = {name: np.minimum(values, config.clip).tolist() for name, values in found.items()}
    first = clipped[config.versions[0]]
    return {
        "perplexity": [_row(name, values, first, config.clip) for name, values in clipped.items()],
        "dialogues": len(fitting),
        "too_long": len(encoded) - len(fitting),
    }


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if no answer could be told from another."""
    del inputs, count
    if not config.clip > 1:
        raise ValueError(f"clip={config.clip}: no perplexity is below 1; wanted a number above it, such as 100")


def device_work(config: ConfigDict, model: ModelConfig, mesh: Mesh) -> DeviceWork:
    """The scores of one version after the other."""
    version = abstract_model("version", model, mesh)
    return DeviceWork((score_log_probabilities("log-probabilities", model, mesh, version, (version,)),))


def perplexities(policy: Policy, dialogues: Sequence[EncodedDialogue]) -> list[float]:
    """Returns of each dialogue exp of the mean negative log-probability of its answers' tokens, EOS included."""
    scored = target_log_probabilities(
        policy.model, policy.params, [one.tokens[:-1] for one in dialogues], [one.tokens[1:] for one in dialogues]
    )
    return [
        float(np.exp(-np.mean(np.asarray(found, np.float64)[np.asarray(one.loss_mask[1:], bool)])))
        for one, found in zip(dialogues, scored, strict=True)
    ]


def _row(name: str, values: Sequence[float], first: Sequence[float], clip: float) -> dict:
    mean, error = mean_and_error(values)
    difference, difference_error = paired_difference(values, first)
    return {
        "version": name,
        "perplexity": mean,
        "standard_error": error,
        "difference": difference,
        "difference_standard_error": difference_error,
        "clipped": sum(value >= clip for value in values) / len(values),
    }
