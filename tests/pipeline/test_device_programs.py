"""What the stages say of themselves beforehand, against what they do: the same programs, the same bytes."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments import rlhf_v5
from llama2_jax.data.preferences import Comparison, preference_batches
from llama2_jax.data.pretraining import pretraining_batches
from llama2_jax.inference import abstract as abstract_file
from llama2_jax.inference import generate as generate_file
from llama2_jax.inference.generate import Sampling, generate
from llama2_jax.models.adapters import AdapterConfig
from llama2_jax.models.config import parameter_count
from llama2_jax.models.llama import LanguageModel, init_language_model, parameter_shardings
from llama2_jax.pipeline import device_programs
from llama2_jax.pipeline.model_training import language_model_step
from llama2_jax.pipeline.trainable import adapter_config, divide
from llama2_jax.sharding.batches import shard_batch
from llama2_jax.sharding.mesh import make_mesh, row_multiple
from llama2_jax.sizing.abstract import compile_abstract
from llama2_jax.stages import dpo, ppo, pretrain, reward_model
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import create_state
from tests.smallest import shrink, smallest_model, smallest_runtime

MODEL = smallest_model(layers=2, scan_layers=True)
OPTIMIZER = {"b1": 0.9, "b2": 0.95, "eps": 1e-5, "weight_decay": 0.1, "clip": 1.0}


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(2, 4, 1)


@pytest.fixture(scope="module")
def params(mesh):
    shardings = parameter_shardings(LanguageModel(MODEL), mesh)
    return jax.jit(lambda key: init_language_model(MODEL, key), out_shardings=shardings)(jax.random.key(0))


def abstract_arguments(program):
    """Of a program that is compiled by compile_abstract(function, *arguments)."""
    return program.compile.args[1:]


def shapes(batch):
    return {name: (np.shape(array), np.dtype(array.dtype)) for name, array in batch.items()}


def bytes_on(device, tree):
    arrays = jax.tree.leaves(tree)
    return sum(shard.data.nbytes for array in arrays for shard in array.addressable_shards if shard.device == device)


@pytest.fixture(scope="module")
def pretraining(mesh):
    settings = ConfigDict({"batch_size": 16, "length": 64, "accumulation": 2, "optimizer": OPTIMIZER})
    return settings, pretrain.device_work(settings, MODEL, mesh).programs[0]


@pytest.mark.slow
def test_bytes_are_those_of_the_real_arrays(mesh, params, pretraining):
    _, program = pretraining
    state = create_state(params, make_optimizer(OptimizerConfig(**OPTIMIZER)))
    for device in (jax.devices()[0], jax.devices()[-1]):
        assert program.uses[0].parameter_bytes == bytes_on(device, state.params)
        assert program.uses[0].optimizer_bytes == bytes_on(device, state.opt_state)
    whole = 4 * parameter_count(MODEL)
    assert whole / 4 < program.uses[0].parameter_bytes < whole / 3, "split over fsdp=4, but for the norms"


def test_the_training_step_is_the_one_that_runs(mesh, params, pretraining):
    settings, program = pretraining
    documents = {"a": [np.arange(3, 90, dtype=np.int32), np.arange(5, 70, dtype=np.int32)]}
    made = pretraining_batches(documents, {"a": 1.0}, settings.length, settings.batch_size, 0, bos_id=1, eos_id=2)
    batch = next(iter(made))
    state, abstract_batch, _ = abstract_arguments(program)
    assert shapes(batch) == shapes(abstract_batch)
    step = language_model_step(MODEL, OptimizerConfig(**OPTIMIZER), settings.accumulation, mesh)
    real = create_state(params, make_optimizer(OptimizerConfig(**OPTIMIZER))), shard_batch(batch, mesh), np.float32(0.1)
    assert step.lower(*real).as_text() == step.lower(*abstract_arguments(program)).as_text()
    assert jax.tree.structure(state) == jax.tree.structure(real[0])


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_step_of_adapters_is_the_one_that_runs(tmp_path, mesh, params, dropout):
    fields = {"rank": 2, "alpha": 4.0, "targets": ("query", "down"), "dropout": dropout}
    settings = ConfigDict({"batch_size": 16, "length": 64, "accumulation": 2, "optimizer": OPTIMIZER,
                           "adapters": fields})  # fmt: skip
    program = device_programs.language_model_training(settings, MODEL, mesh)
    adapters, optimizer = AdapterConfig(**fields), OptimizerConfig(**OPTIMIZER)
    runtime = smallest_runtime(tmp_path, mesh=mesh, model=MODEL)
    trainable = divide("language", params, adapters, jax.random.key(1), runtime)
    state = create_state(trainable.trained, make_optimizer(optimizer))
    batch = {name: np.zeros((16, 64), np.int32) for name in ("tokens", "positions", "segment_ids", "loss_mask")}
    step = language_model_step(MODEL, optimizer, 2, mesh, adapters)
    real = step.lower(state, shard_batch(batch, mesh), np.float32(0.1), trainable.frozen)
    assert real.as_text() == step.lower(*abstract_arguments(program)).as_text()
    device = jax.devices()[0]
    assert program.uses[0].optimizer_bytes == bytes_on(device, state.opt_state)
    whole = trainable.complete(trainable.trained)
    assert program.uses[0].parameter_bytes == bytes_on(device, whole)


@pytest.mark.parametrize("rank", [0, 2])
def test_the_step_with_residual_dropout_is_the_one_that_runs(tmp_path, mesh, params, rank):
    fields = {"rank": rank, "alpha": 4.0, "targets": ("query", "down"), "dropout": 0.0}
    settings = ConfigDict({"batch_size": 16, "length": 64, "accumulation": 2, "optimizer": OPTIMIZER,
                           "adapters": fields, "residual_dropout": 0.3})  # fmt: skip
    program = device_programs.language_model_training(settings, MODEL, mesh)
    adapters, optimizer = adapter_config(settings), OptimizerConfig(**OPTIMIZER)
    runtime = smallest_runtime(tmp_path, mesh=mesh, model=MODEL)
    trainable = divide("language", params, adapters, jax.random.key(1), runtime, 0.3)
    state = create_state(trainable.trained, make_optimizer(optimizer))
    batch = {name: np.zeros((16, 64), np.int32) for name in ("tokens", "positions", "segment_ids", "loss_mask")}
    step = language_model_step(MODEL, optimizer, 2, mesh, adapters, 0.3)
    real = step.lower(state, shard_batch(batch, mesh), np.float32(0.1), trainable.frozen)
    assert real.as_text() == step.lower(*abstract_arguments(program)).as_text()


def test_ppo_with_adapters_keeps_each_frozen_model_once(mesh):
    config = shrink(rlhf_v5.get_config())
    held = []
    for rank in (0, 2):
        config.adapters.rank = rank
        programs = ppo.device_work(config.rlhf_v5_ppo, MODEL, mesh).programs
        held.append({
            sum(one.parameter_bytes + one.optimizer_bytes for one in (*program.uses, *program.co_resident)
                if "decoding" not in one.name)
            for program in programs
        })  # fmt: skip
    (everything,), adapted = held
    # The helpfulness reward model's own head is counted where it is used.
    assert max(adapted) - min(adapted) <= 4 * MODEL.dim
    one = device_programs.abstract_model("one", MODEL, mesh).parameter_bytes
    scalar = device_programs.abstract_model("one", MODEL, mesh, "scalar").parameter_bytes
    # Policy and critic with two moments each, reference and three reward models.
    assert everything >= 4 * one + 6 * scalar
    adapters = AdapterConfig(**config.rlhf_v5_ppo.adapters.to_dict())
    trained = sum(
        own.parameter_bytes + own.optimizer_bytes
        for head in ("language", "scalar")
        for own in (device_programs.adapters_of(
            device_programs.abstract_trained("one", MODEL, ConfigDict(OPTIMIZER), mesh, head, adapters)
        ),)
    )  # fmt: skip
    # The policy's base, three reward models of which one is the critic's base, and what is trained.
    assert max(adapted) == one + 3 * scalar + trained


@pytest.mark.parametrize("accumulation", [1, 2])
def test_pairs_have_the_shapes_of_the_largest_batches(mesh, accumulation):
    config = ConfigDict({
        "kind": "safety", "safety_auxiliary_weight": 1.0, "pairs_per_batch": 24, "length": 32,
        "accumulation": accumulation, "optimizer": OPTIMIZER,
    })  # fmt: skip
    check_pairs(config, mesh, reward_model.device_work(config, MODEL, mesh).programs[0])


@pytest.mark.parametrize("accumulation", [1, 2])
def test_pairs_of_dpo_have_the_shapes_of_the_largest_batches(mesh, accumulation):
    config = ConfigDict({
        "beta": 0.1, "label_smoothing": 0.0, "pairs_per_batch": 24, "length": 32, "accumulation": accumulation,
        "optimizer": OPTIMIZER,
    })  # fmt: skip
    labels = {name: np.zeros(24, dtype) for name, dtype in dpo.LABELS.items()}
    check_pairs(config, mesh, dpo.device_work(config, MODEL, mesh).programs[1], labels=labels)


def check_pairs(config, mesh, step, **options):
    """The batch that a step is compiled for is, in shapes and places, that of full rows."""
    one = Comparison(np.arange(32, dtype=np.int32), np.arange(17, dtype=np.int32), "better", 1.0, (True, False), (3, 2))
    real = preference_batches(
        [one] * 24, config.pairs_per_batch, config.length, 0,
        accumulation=config.accumulation, row_multiple=row_multiple(mesh), **options,
    )  # fmt: skip
    batch = {name: array for name, array in next(iter(real)).items() if name != "ids"}
    assert shapes(batch) == shapes(abstract_arguments(step)[1])
    placed = shard_batch(batch, mesh)
    assert {n: a.sharding.spec for n, a in placed.items()} == {
        n: a.sharding.spec for n, a in abstract_arguments(step)[1].items()
    }


def test_packed_rows_are_rounded_to_what_the_mesh_can_split():
    assert row_multiple(make_mesh(1, 8, 1)) == 8
    assert row_multiple(make_mesh(1, 1, 8)) == 2, "tensor parallelism does not split rows"
    three = make_mesh(1, 3, 1, devices=jax.devices()[:3])
    assert row_multiple(three) == 6
    assert device_programs.packed_rows(25, three) == 30


class Recorder:
    """A compiled function that keeps the text it was lowered to at its last call."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *arguments, **settings):
        self.text = self.function.lower(*arguments, **settings).as_text()
        return self.function(*arguments, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 4])
def test_generation_is_the_one_that_runs(mesh, params, monkeypatch, samples):
    settings = ConfigDict({"max_new_tokens": 4, "top_p": 1.0})
    policy = device_programs.abstract_model("policy", MODEL, mesh)
    recorders = {name: Recorder(getattr(generate_file, name)) for name in ("prefill_rows", "decode_rows")}
    for name, recorder in recorders.items():
        monkeypatch.setattr(generate_file, name, recorder)
    prompts = [[1] * (MODEL.max_length - 4)] * (MODEL.generation_rows // samples)
    generate(
        MODEL, params, prompts, Sampling(max_new_tokens=4), jax.random.key(0), eos_id=2, samples_per_prompt=samples
    )
    programs = device_programs.generation(settings, MODEL, mesh, policy, samples_per_prompt=samples)
    lowered = []

    def compile_and_keep(function, *arguments, **named):
        lowered.append(function.lower(*arguments, **named).as_text())
        return compile_abstract(function, *arguments, **named)

    monkeypatch.setattr(abstract_file, "compile_abstract", compile_and_keep)
    for program, recorder in zip(programs, recorders.values(), strict=True):
        program.compile()
        assert lowered[-1] == recorder.text


def test_the_optimizer_is_held_while_its_model_generates(mesh):
    trained = device_programs.abstract_trained("policy", MODEL, ConfigDict(OPTIMIZER), mesh)
    other = device_programs.abstract_model("reference", MODEL, mesh)
    program = device_programs.score_log_probabilities("p", MODEL, mesh, trained, (trained, other), rows=100)
    assert sum(one.optimizer_bytes for one in (*program.uses, *program.co_resident)) == trained.optimizer_bytes > 0
    assert sum(one.parameter_bytes for one in (*program.uses, *program.co_resident)) == 2 * other.parameter_bytes
    at_once = 8192 // MODEL.max_length
    assert program.calls == 1 and program.model_flops > 2 * at_once * MODEL.max_length * MODEL.dim * MODEL.vocab_size
