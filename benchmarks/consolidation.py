"""Compares generation with consolidated weights and with the layout of training: bytes sent and time per token.

    python -m benchmarks.consolidation                                    # measured on 8 emulated devices
    python -m benchmarks.consolidation --scale=7b --topology=v5p:4x4x4    # from programs compiled for a TPU slice

The first times both layouts in alternating runs on this machine's CPU. The second runs nothing: it counts what the
compiled decoding loop sends, and estimates the time by the chip's stated speeds; it needs `pip install "jax[tpu]"`.
Programs of 2 and of 4 layers are compiled and extrapolated linearly to the scale's number of layers, since a decoding
step repeats its layers and compiling them all takes long. Prints Markdown; docs/scale.md has the output.
"""

import argparse
import dataclasses
import functools
import statistics
import time

import jax
import numpy as np

from llama2_jax.inference.abstract import GenerationShapes, abstract_weights, compile_decode
from llama2_jax.inference.consolidation import generation_weights
from llama2_jax.inference.generate import DecodedRows, decode_rows, prefill_rows
from llama2_jax.models.config import PRESETS, ModelConfig
from llama2_jax.models.decoding import decoding_weights
from llama2_jax.models.llama import LanguageModel, init_language_model, parameter_shardings
from llama2_jax.pipeline.device_programs import abstract_model
from llama2_jax.sharding.mesh import make_mesh
from llama2_jax.sizing.abstract import compile_abstract, device_bytes
from llama2_jax.sizing.chips import chip_of
from llama2_jax.sizing.program_costs import count_program
from llama2_jax.sizing.program_text import parse_program
from llama2_jax.sizing.roofline import roofline
from llama2_jax.sizing.topology import slice_devices

LAYOUTS = {"layout of training": False, "consolidated": True}
COUNTED_LAYERS = (2, 4)


@dataclasses.dataclass(frozen=True)
class Step:
    """The work of one device for one token of every row, or for the consolidation.

    Attributes:
      sent: bytes sent to other devices.
      sending: seconds that takes at the links' stated speed.
      device: seconds of computing and reading on the device.
    """

    sent: float
    sending: float
    device: float

    def __add__(self, other: "Step") -> "Step":
        return Step(self.sent + other.sent, self.sending + other.sending, self.device + other.device)

    def __mul__(self, times: float) -> "Step":
        return Step(self.sent * times, self.sending * times, self.device * times)


def main() -> None:
    """Prints the table of one of the two comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", default="", help="a TPU slice, such as v5p:4x4x4; measured here by default")
    parser.add_argument("--scale", default="7b", choices=list(PRESETS))
    parser.add_argument("--tensor", type=int, default=1)
    parser.add_argument("--rows", type=int, default=128, help="answers decoded together")
    parser.add_argument("--prompt_length", type=int, default=512)
    parser.add_argument("--new_tokens", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5, help="of the measurement")
    arguments = parser.parse_args()
    shapes = GenerationShapes(arguments.rows, arguments.rows, arguments.prompt_length, arguments.new_tokens)
    if arguments.topology:
        lines = compiled_table(arguments.scale, arguments.topology, arguments.tensor, shapes)
    else:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", 8)
        lines = measured_table(arguments.repeats)
    print("\n".join(lines))


def compiled_table(scale: str, topology: str, tensor: int, shapes: GenerationShapes) -> list[str]:
    """Returns the table of both layouts on a TPU slice, from the compiled programs."""
    mesh = make_mesh(data=1, fsdp=-1, tensor=tensor, devices=slice_devices(topology))
    model = PRESETS[scale]
    steps = {
        f"{name}, each token": _extrapolated(_decoding_step, model, mesh, shapes, kind)
        for name, kind in LAYOUTS.items()
    }
    once = _extrapolated(_laying_out, model, mesh, shapes, True)
    weights = abstract_weights(model, abstract_model("policy", model, mesh).params)
    rows = [
        f"| {name} | {_bytes(step.sent)} | {_seconds(step.sending)} | {_seconds(step.device)} "
        f"| {_seconds(max(step.sending, step.device))} |"
        for name, step in (steps | {"the consolidation, once": once}).items()
    ]
    return [
        f"{scale} on {topology}, mesh {dict(mesh.shape)}, {shapes.rows} rows, {shapes.prompt_length} + "
        f"{shapes.new_tokens} tokens; the consolidated weights take {_bytes(device_bytes(weights))} of each device.",
        "",
        "| | sent by a device | sending | computing and reading | estimate |",
        "|---|---|---|---|---|",
        *rows,
    ]


def _extrapolated(count, model: ModelConfig, mesh, shapes: GenerationShapes, consolidated: bool) -> Step:
    """Returns the cost at the model's number of layers, extrapolated linearly from two small numbers."""
    few, more = (
        count(dataclasses.replace(model, layers=layers, consolidate_weights=consolidated), mesh, shapes)
        for layers in COUNTED_LAYERS
    )
    a_layer = (more + few * -1) * (1 / (COUNTED_LAYERS[1] - COUNTED_LAYERS[0]))
    return few + a_layer * (model.layers - COUNTED_LAYERS[0])


def _decoding_step(model: ModelConfig, mesh, shapes: GenerationShapes) -> Step:
    weights = abstract_weights(model, abstract_model("policy", model, mesh).params)
    program = parse_program(compile_decode(model, weights, shapes, top_p=1.0).as_text())
    # One iteration of the loop: the cost of two less the cost of one.
    return _cost(program, mesh, 2) + _cost(program, mesh, 1) * -1


def _laying_out(model: ModelConfig, mesh, shapes: GenerationShapes) -> Step:
    params = abstract_model("policy", model, mesh).params
    program = jax.jit(decoding_weights, static_argnames=("config", "mesh"))
    return _cost(parse_program(compile_abstract(program, params, config=model, mesh=mesh).as_text()), mesh, 1)


def _cost(program, mesh, turns: int) -> Step:
    costs = count_program(program, turns)
    times = roofline(costs, chip_of(mesh.devices.flat[0]), list(mesh.devices.flat))
    return Step(sum(costs.collective_bytes.values()), times.collectives, times.device)


def measured_table(repeats: int) -> list[str]:
    """Returns the table of both layouts on 8 emulated devices, in alternating runs."""
    model = ModelConfig(
        vocab_size=4096, dim=512, layers=8, heads=8, kv_heads=8, ffn_hidden=1536, max_length=256, scan_layers=False
    )
    mesh, rows, tokens = make_mesh(data=1, fsdp=8, tensor=1), 16, 64
    initialise = jax.jit(
        functools.partial(init_language_model, model), out_shardings=parameter_shardings(LanguageModel(model), mesh)
    )
    params = initialise(jax.random.key(0))
    seconds = {name: [] for name in (*LAYOUTS, "the consolidation, once")}
    for repeat in range(repeats + 1):
        for name, consolidated in LAYOUTS.items():
            choice = dataclasses.replace(model, consolidate_weights=consolidated)
            start = time.perf_counter()
            weights = jax.block_until_ready(generation_weights(choice, params))
            laid_out = time.perf_counter() - start
            decoding = _time_decoding(choice, weights, mesh, rows, tokens)
            if repeat:  # the first one compiles
                seconds[name].append(decoding / tokens)
                if consolidated:
                    seconds["the consolidation, once"].append(laid_out)
    size = sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6
    return [
        f"A model of {size:.0f}M parameters in float32 on 8 emulated devices, mesh {dict(mesh.shape)}, {rows} rows; "
        f"medians of {repeats} alternating runs of {tokens} tokens.",
        "",
        "| | each token, median | fastest | slowest |",
        "|---|---|---|---|",
        *(
            f"| {name} | {_seconds(statistics.median(times))} | {_seconds(min(times))} | {_seconds(max(times))} |"
            for name, times in seconds.items()
        ),
    ]


def _time_decoding(model: ModelConfig, weights, mesh, rows: int, tokens: int) -> float:
    prompts = np.ones((rows, 32), np.int32)
    positions = np.tile(np.arange(32, dtype=np.int32), (rows, 1))
    order = np.arange(rows, dtype=np.int32)
    hidden, cache = jax.block_until_ready(
        prefill_rows(weights, prompts, positions, order, config=model, slots=32 + tokens, mesh=mesh)
    )
    decoded_rows = DecodedRows(
        positions=np.full(rows, 32, np.int32),
        temperature=np.ones(rows, np.float32),
        answer_ids=order,
        used=np.int32(rows),
        eos_id=np.int32(-1),  # no id ends an answer
        top_p=None,
    )
    start = time.perf_counter()
    jax.block_until_ready(
        decode_rows(weights, hidden, cache, decoded_rows, jax.random.key(0), config=model, steps=tokens, mesh=mesh)
    )
    return time.perf_counter() - start


def _bytes(size: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size:.0f} B"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-4 else f"{seconds * 1e6:.3g} us"


if __name__ == "__main__":
    main()
