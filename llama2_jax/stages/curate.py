"""Dialogues without the answers that are not worth learning (GPT4All: refusals, very short and malformed ones).

Writes dialogues.jsonl, to fine-tune on, and left_out.jsonl, with the reason of each.
"""

from collections import Counter
from collections.abc import Mapping

from ml_collections import ConfigDict

from llama2_jax.corpus.unfit_answers import problems
from llama2_jax.data.counts import Count
from llama2_jax.pipeline.encoding import read_sources
from llama2_jax.pipeline.runtime import Inputs, Runtime, configured_function
from llama2_jax.pipeline.stage_files import write_jsonl


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Looks at the dialogues of all sources, in their order."""
    refuses = configured_function(config.classifier, inputs, runtime)
    read = read_sources(config.sources, runtime, "dialogues")
    records = [{**record, "source": name} for name, rows in read.items() for record in rows]
    reasons = problems(records, config.fewest_words, refuses)
    pairs = list(zip(records, reasons, strict=True))
    kept = [record for record, reason in pairs if not reason]
    if not kept:
        raise ValueError(f"{runtime.stage}: none of {len(records)} dialogues is kept: {dict(Counter(reasons))}")
    write_jsonl(runtime.folder / "dialogues.jsonl", kept)
    write_jsonl(runtime.folder / "left_out.jsonl", [{**record, "reason": reason} for record, reason in pairs if reason])
    return {"kept": len(kept), "left_out": dict(sorted(Counter(filter(None, reasons)).items()))}


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if there is nothing to look at."""
    del inputs
    if not count(config.sources):
        raise ValueError("sources have no dialogues")
