"""Loads a model and its tokenizer from a folder of any supported format, to complete texts and answer messages.

    import llama2_jax

    llama = llama2_jax.load("checkpoints/llama-2-7b-chat")  # or "hf://meta-llama/Llama-2-7b-chat-hf"
    print(llama.complete("The capital of France is", max_new_tokens=20))
    print(llama.reply([{"role": "user", "content": "Name three rivers."}]))

For many prompts at once: `inference.generate.generate`; token by token: `inference.stream`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from llama2_jax.inference.generate import Sampling, generate
from llama2_jax.interop.adapters import HEAD, StoredAdapters, trained_shapes, with_adapters
from llama2_jax.interop.checkpoint import (
    DTYPES,
    STACKED,
    Checkpoint,
    Index,
    check_tokenizer,
    local_folder,
    parameter_shapes,
    widest,
)
from llama2_jax.interop.hub_model import local_model
from llama2_jax.interop.huggingface import open_huggingface
from llama2_jax.interop.loading import load_params
from llama2_jax.interop.meta import LENGTH, open_meta
from llama2_jax.interop.peft import base_of, open_peft
from llama2_jax.interop.recognise import recognise
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.heads import HEADS, build_model
from llama2_jax.models.llama import LanguageModel, ScalarModel
from llama2_jax.models.quantized import QuantizedMatrix, quantization, quantized_shape
from llama2_jax.paths import absolute
from llama2_jax.text.dialogue import Message, encode_prompt
from llama2_jax.text.tokenizer import Tokenizer
from llama2_jax.training.adaptation import Adaptation
from llama2_jax.training.model_folder import (
    check_head,
    load_adaptation,
    load_model_description,
    load_quantized,
    tokenizer_path,
)
from llama2_jax.training.stored_params import ParamsReader


@dataclasses.dataclass(frozen=True)
class Llama:
    """A model, ready to be applied: `model.apply({"params": params}, tokens, positions, segment_ids)`.

    Attributes:
      config: the network's sizes.
      model: a LanguageModel; for a reward model's folder a ScalarModel.
      params: its parameters.
      tokenizer: None if the folder has none.
    """

    config: ModelConfig
    model: LanguageModel | ScalarModel
    params: dict[str, Any]
    tokenizer: Tokenizer | None

    def complete(
        self, text: str, max_new_tokens: int = 64, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0
    ) -> str:
        """Returns a continuation of a text, greedy by default.

        Args:
          text: the text to continue.
          max_new_tokens: the longest continuation; it ends earlier if the context is full.
          temperature, top_p, seed: how tokens are sampled; temperature 0 takes the likeliest.

        Raises:
          ValueError: if there is no tokenizer, if it is a reward model, if the text fills the context, or if a setting
            means nothing.
        """
        prompt = self._tokenizer().encode(text, bos=True)
        answer = self._generate(prompt, max_new_tokens, temperature, top_p, seed)
        return self._tokenizer().decode_after(prompt, answer)

    def reply(
        self,
        messages: Sequence[Message],
        max_new_tokens: int = 256,
        temperature: float = 0.6,
        top_p: float = 0.9,
        seed: int = 0,
    ) -> str:
        """Returns the assistant's next message, by default sampled as in the reference's chat.

        Args:
          messages: {"role", "content"}: an optional system message, then user and assistant in turn, the user last.
          max_new_tokens, temperature, top_p, seed: as for `complete`.

        Raises:
          ValueError: as `complete`, and as `text.dialogue.encode_prompt` if the messages are not a dialogue.
        """
        prompt = encode_prompt(self._tokenizer(), messages)
        return self._tokenizer().decode(self._generate(prompt, max_new_tokens, temperature, top_p, seed)).strip()

    def _generate(
        self, prompt: Sequence[int], max_new_tokens: int, temperature: float, top_p: float, seed: int
    ) -> list[int]:
        if not isinstance(self.model, LanguageModel):
            raise ValueError("this is a reward model, which gives scores: to generate text, load a language model")
        room = self.config.max_length - len(prompt)
        if room < 1:
            raise ValueError(f"the prompt has {len(prompt)} tokens; the model's context has {self.config.max_length}")
        sampling = Sampling(temperature, top_p, min(max_new_tokens, room))
        key, end_id = random_key(seed), self._tokenizer().end_id
        config = dataclasses.replace(self.config, generation_rows=1)
        (sample,) = generate(config, self.params, [prompt], sampling, key, end_id)
        return sample.tokens.tolist()

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise ValueError("the model has no tokenizer: put its tokenizer.model into its folder")
        return self.tokenizer


def load(
    path: str | pathlib.Path,
    mesh: Mesh | None = None,
    dtype: str | None = "float32",
    head: str | None = None,
    quantize: str = "",
) -> Llama:
    """Loads a model and its tokenizer.

    Args:
      path: a local folder in one of three formats, recognised by its files: this project's (model.json with
        checkpoints/, such as a stage's folder), Hugging Face's (config.json), or Meta's (params.json). Or a model on
        the Hugging Face hub in one of them, hf://<org>/<name>[@<revision>], which is downloaded once. Adapters, this
        project's or PEFT's (adapter_config.json), are added to the model that they name.
      mesh: devices to split the parameters over (sharding.mesh.make_mesh); each part is read directly onto its device.
        By default all are on the first one.
      dtype: of the parameters: `float32`, which training and the objectives need; None for the network's compute
        dtype, which is enough for generation and half the memory if it is bfloat16.
      head: what the model must be, `language` or `scalar` (a reward model); by default either. Checked before the
        parameters are read.
      quantize: "int8" or "int4": the layers' matrices are stored so, which is enough for generation and scoring, and
        takes 0.27 or 0.14 of float32's memory for them (models/quantized.py); "" for as they are stored.

    Raises:
      ValueError: if the folder has no such format, a file is missing, broken or does not fit another (the message names
        it), the model has another head, or the dtype, head or quantisation asked for is unknown.
    """
    for name, value, choices in (("dtype", dtype, DTYPES), ("head", head, HEADS)):
        if value is not None and value not in choices:
            raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}, or None")
    quantization(quantize)  # refused before anything is read
    checkpoint = open_checkpoint(absolute(local_model(path)))
    config = checkpoint.config
    check_head(checkpoint.head, head or checkpoint.head, path)
    how = quantization(quantize or checkpoint.quantized)
    params = load_params(checkpoint, mesh, DTYPES[dtype or config.compute_dtype], how)
    tokenizer = checkpoint.tokenizer_model and Tokenizer.load(checkpoint.tokenizer_model)
    return Llama(config, build_model(config, checkpoint.head, mesh), params, tokenizer)


def open_checkpoint(path: str | pathlib.Path, max_length: int = LENGTH, base: str = "") -> Checkpoint:
    """Opens a model in any of the formats without reading its values; adapters with their base, as one model.

    Args:
      path: a local folder, or a model on the Hugging Face hub, hf://<org>/<name>[@<revision>].
      max_length: the longest sequence in tokens; only used for Meta's format, which does not store it.
      base: the model that adapters in PEFT's format belong to; by default the one that they name.

    Raises:
      ValueError: if it is not a model or a broken one; the message names the file and what is wrong with it.
    """
    folder = local_folder(local_model(path))
    kind = recognise(folder)
    if kind == "huggingface":
        return open_huggingface(folder)
    if kind == "meta":
        return open_meta(folder, max_length)
    if kind == "peft":
        return _open_peft(folder, base or base_of(folder), max_length)
    config, head = load_model_description(folder)
    tokenizer = tokenizer_path(folder)
    if tokenizer is not None:
        tokenizer = pathlib.Path(tokenizer)
        check_tokenizer(tokenizer, config.vocab_size)
    if adaptation := load_adaptation(folder):
        adaptation.check_base(folder)
        base = open_checkpoint(adaptation.base, max_length)
        adapted = with_adapters(
            base, _stored_adapters(folder, config, head, adaptation), "orbax", folder, tokenizer or base.tokenizer_model
        )
        return dataclasses.replace(adapted, config=config)
    if quantized := load_quantized(folder):
        return _open_quantized(folder, config, head, quantized, tokenizer)
    reader = ParamsReader(folder, parameter_shapes(config, head))
    return Checkpoint(
        kind="orbax",
        folder=folder,
        config=config,
        head=head,
        dtype=widest(reader.dtypes.values()),
        tokenizer_model=tokenizer,
        read=reader.read,
    )


def _open_peft(folder: pathlib.Path, base: str, max_length: int) -> Checkpoint:
    opened = open_checkpoint(base, max_length)
    tokenizer = folder / "tokenizer.model"
    if tokenizer.exists():
        check_tokenizer(tokenizer, opened.config.vocab_size)
    else:
        tokenizer = opened.tokenizer_model
    return with_adapters(opened, open_peft(folder, opened.config, base), "peft", folder, tokenizer)


def _open_quantized(
    folder: pathlib.Path, config: ModelConfig, head: str, quantized: str, tokenizer: pathlib.Path | None
) -> Checkpoint:
    shapes, how = parameter_shapes(config, head), quantization(quantized)
    matrices = [name for name, shape in shapes.items() if name.startswith(STACKED) and len(shape) == 3]
    small = {name: quantized_shape(shapes[name], how) for name in matrices}
    # A reader keeps one parameter's chunks.
    values, scales = (ParamsReader(folder, {f"{name}/{part}": getattr(small[name], part).shape for name in matrices})
                      for part in ("values", "scales"))  # fmt: skip
    others = ParamsReader(folder, {name: shape for name, shape in shapes.items() if name not in small})

    def read(name: str, layer: int | None = None, index: Index | None = None) -> np.ndarray:
        if name not in small:
            return others.read(name, layer, index)
        stored = (values.read(f"{name}/values", layer), scales.read(f"{name}/scales", layer))
        matrix = np.asarray(QuantizedMatrix(*map(jnp.asarray, stored), bits=how.bits).restored(jnp.float32))
        return matrix if index is None else matrix[index]

    dtype = widest(others.dtypes.values())
    return Checkpoint("orbax", folder, config, head, dtype, tokenizer, read, quantized=quantized)


def _stored_adapters(folder: pathlib.Path, config: ModelConfig, head: str, adaptation: Adaptation) -> StoredAdapters:
    shapes = trained_shapes(config, head, adaptation.adapters)
    # A reader keeps one parameter's chunks: each factor has its own, small as they are.
    readers = {name: ParamsReader(folder, {name: shape}) for name, shape in shapes.items()}
    return StoredAdapters(
        adaptation.adapters,
        str(adaptation.base),
        widest(dtype for reader in readers.values() for dtype in reader.dtypes.values()),
        lambda target, factor, layer: readers[f"{STACKED}{target}/{factor}"].read(f"{STACKED}{target}/{factor}", layer),
        (lambda: readers[HEAD].read(HEAD)) if head == "scalar" else None,
    )


def random_key(seed: int) -> jax.Array:
    """Returns the key of a seed.

    Raises:
      ValueError: if it is not an integer of 64 bits.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed is {seed!r}; wanted an integer from -2^63 to 2^63 - 1")
    return jax.random.key(seed)
