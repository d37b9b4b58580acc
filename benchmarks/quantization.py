"""A model with its matrices in 8 and in 4 bits beside the whole one: memory, error and speed, in the same run.

Run: python -m benchmarks.quantization --checkpoint=<folder or hf://org/name> --text=<file> [--rounds 3]
Any model that llama2_jax.load reads; the text is cut into rows of at most 512 tokens, of which --rows are read. Prints
for each form the bytes of the parameters, the perplexity of the text, how far the next-token distributions are from the
whole model's (Kullback-Leibler, nats), how often the likeliest token is the same, and tokens a second in generation,
the forms in turns; at last the same as JSON, with the ratios of speed to the whole model.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import statistics
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from llama2_jax.inference.generate import Sampling, generate
from llama2_jax.loading import Llama, load
from llama2_jax.models.llama import LanguageModel, Params
from llama2_jax.models.quantized import QUANTIZATIONS
from llama2_jax.paths import expand_home

LONGEST = 512
PROMPT_TOKENS, NEW_TOKENS, ANSWERS = 32, 64, 8


@dataclasses.dataclass
class Form:
    """What was measured of a form, "whole", "int8" or "int4"."""

    name: str
    gigabytes: float
    perplexity: float
    divergence: float
    same_token: float
    tokens_per_second: float = 0.0
    speed_ratio: float = 0.0


def main() -> None:
    """Measures the forms and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3, help="of the timed generation, after one that compiles")
    arguments = parser.parse_args()
    names = [name or "whole" for name in QUANTIZATIONS]
    models = {
        name: load(expand_home(arguments.checkpoint), dtype=None, head="language", quantize=quantize)
        for name, quantize in zip(names, QUANTIZATIONS, strict=True)
    }
    rows = text_rows(models["whole"], arguments.text.read_text(), arguments.rows)
    whole = [log_distributions(models["whole"], row) for row in rows]
    forms = [measured(name, model, rows, whole) for name, model in models.items()]
    time_generation(forms, models, [row[:PROMPT_TOKENS] for row in rows], arguments.rounds)
    print("\n".join(table(forms)))
    print(json.dumps({form.name: dataclasses.asdict(form) for form in forms}))


def text_rows(llama: Llama, text: str, most: int) -> list[list[int]]:
    """Returns the first rows of a text, each with BOS and of the same length."""
    length = min(LONGEST, llama.config.max_length) - 1
    ids = llama.tokenizer.encode(text)
    rows = [[llama.tokenizer.bos_id, *ids[first : first + length]] for first in range(0, len(ids) - length + 1, length)]
    if not rows:
        raise ValueError(f"the text has {len(ids)} tokens; give one of at least {length}")
    return rows[:most]


def log_distributions(llama: Llama, row: Sequence[int]) -> np.ndarray:
    """Returns the log-probabilities of every next token, [length - 1, vocab]."""
    tokens = jnp.asarray([row], jnp.int32)
    logits = _logits(llama.model, llama.params, tokens)
    return np.asarray(jax.nn.log_softmax(logits[0, :-1].astype(jnp.float32)))


def measured(name: str, llama: Llama, rows: Sequence[Sequence[int]], whole: Sequence[np.ndarray]) -> Form:
    """Returns a form's size and error; its speed is measured later."""
    losses, divergences, same = [], [], []
    for row, reference in zip(rows, whole, strict=True):
        found = log_distributions(llama, row)
        losses.append(-np.mean(found[np.arange(len(row) - 1), row[1:]]))
        divergences.append(np.mean(np.sum(np.exp(reference) * (reference - found), axis=-1)))
        same.append(np.mean(found.argmax(-1) == reference.argmax(-1)))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(llama.params)) / 1e9
    return Form(name, size, float(np.exp(np.mean(losses))), float(np.mean(divergences)), float(np.mean(same)))


def time_generation(
    forms: Sequence[Form], models: dict[str, Llama], prompts: Sequence[Sequence[int]], rounds: int
) -> None:
    """Adds the median speed of generation, one form after the other in each round; no answer ends before its limit."""
    asked = [prompts[index % len(prompts)] for index in range(ANSWERS)]
    seconds: dict[str, list[float]] = {form.name: [] for form in forms}
    for _ in range(rounds + 1):
        for name, of_name in seconds.items():
            llama = models[name]
            sampling = Sampling(1.0, 1.0, min(NEW_TOKENS, llama.config.max_length - len(asked[0])))
            began = time.perf_counter()
            # No token has the id of this EOS.
            samples = generate(llama.config, llama.params, asked, sampling, jax.random.key(0), llama.config.vocab_size)
            of_name.append((time.perf_counter() - began) / sum(len(sample.tokens) for sample in samples))
    for form in forms:
        form.tokens_per_second = 1 / statistics.median(seconds[form.name][1:])
    for form in forms:
        form.speed_ratio = form.tokens_per_second / forms[0].tokens_per_second


def table(forms: Sequence[Form]) -> list[str]:
    """Returns the forms as a table in Markdown."""
    rows = ["| | GB | perplexity | KL, nats | same likeliest token | tokens/s | ratio |", "|---" * 7 + "|"]
    return rows + [
        f"| {form.name} | {form.gigabytes:.4f} | {form.perplexity:.3f} | {form.divergence:.5f} | "
        f"{form.same_token:.3f} | {form.tokens_per_second:.1f} | {form.speed_ratio:.2f} |"
        for form in forms
    ]


@functools.partial(jax.jit, static_argnames="model")
def _logits(model: LanguageModel, params: Params, tokens: jax.Array) -> jax.Array:
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return model.apply({"params": params}, tokens, positions, jnp.ones_like(tokens))


if __name__ == "__main__":
    main()
