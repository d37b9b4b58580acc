"""What the stages that learn from comparisons share: which are held out, how many there are, and their batches."""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.data.records import DOMAINS
from llama2_jax.pipeline.device_programs import abstract_batch, rows_of
from llama2_jax.pipeline.encoding import read_records
from llama2_jax.pipeline.runtime import Inputs, Runtime
from llama2_jax.pipeline.stage_files import read_all_jsonl


def read_test_comparisons(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict[str, list[dict]]:
    """Returns the held-out comparisons of each domain, "helpfulness" and "safety".

    Those of all rounds so far, the input `annotations`, and under "human_helpfulness" and "human_safety" those from the
    files that `config.test_preferences` names.
    """
    rows = read_all_jsonl(inputs["annotations"], "comparisons_test.jsonl")
    human = read_records(config.test_preferences, runtime, "preferences")
    return {
        prefix + domain: [row for row in rows if row["domain"] == domain]
        for prefix, rows in (("", rows), ("human_", human))
        for domain in DOMAINS
    }


def most_comparisons(config: ConfigDict, inputs: Mapping, count: Count) -> float:
    """Returns the most comparisons that the annotations and `config.preferences` can give, for a stage's `check`."""
    # How many comparisons an imported annotation has is not known.
    annotated = sum(count(part.prompts) if "prompts" in part else math.inf for part in inputs["annotations"])
    return annotated + count(config.preferences)


def abstract_pairs(
    config: ConfigDict, rows: int, labels: Mapping[str, Any], mesh: Mesh, pairs: int | None = None
) -> dict[str, Any]:
    """Returns a batch of `answer_batches` for the dry run.

    Args:
      config: the stage's length and accumulation and, if they are not given, its pairs_per_batch.
      rows: in each microbatch.
      labels: the dtype of each label of a pair.
      mesh: where the batch is.
      pairs: in each microbatch.
    """
    pairs = (config.pairs_per_batch // config.accumulation if pairs is None else pairs,)
    places = {f"{side}_{axis}": (pairs, jnp.int32) for side in ("chosen", "rejected") for axis in ("row", "column")}
    dtypes = {**labels, "pair_mask": jnp.float32}
    fields = {
        **rows_of(("tokens", "segment_ids", "positions"), rows, config.length),
        **places,
        **{name: (pairs, dtype) for name, dtype in dtypes.items()},
    }
    if config.accumulation > 1:
        fields = {name: ((config.accumulation, *shape), dtype) for name, (shape, dtype) in fields.items()}
    return abstract_batch(fields, mesh)
