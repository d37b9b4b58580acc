"""A stage that samples answers of a model of random weights, and does harm to its process (harmed_stage.py)."""

import jax
import numpy as np

from llama2_jax.inference.generate import Sampling, generate
from llama2_jax.models.llama import LanguageModel, init_language_model, parameter_shardings
from llama2_jax.pipeline.resumable import map_resumable
from llama2_jax.pipeline.stage_files import write_jsonl
from tests.harmed_stage import harm


def run(config, inputs, runtime):
    shardings = parameter_shardings(LanguageModel(runtime.model), runtime.mesh)
    params = jax.jit(lambda key: init_language_model(runtime.model, key), out_shardings=shardings)(runtime.key)
    prompts = np.random.default_rng(0).integers(97, 123, (config.prompts, 5)).tolist()

    def answer(first, stop):
        harm(first // config.shard_size + 1, runtime.folder)
        samples = generate(
            runtime.model, params, prompts[first:stop], Sampling(max_new_tokens=8), runtime.key, 2,
            prompt_ids=range(first, stop),
        )  # fmt: skip
        return [{"tokens": sample.tokens.tolist(), "processes": jax.process_count()} for sample in samples]

    rows = map_resumable("answers", config.prompts, answer, runtime, config.shard_size)
    write_jsonl(runtime.folder / "answers.jsonl", [{"tokens": row["tokens"]} for row in rows])
    return {"processes": [row["processes"] for row in rows[:: config.shard_size]]}
