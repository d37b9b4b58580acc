"""A mesh changes no number: one step of every stage's own program, and generation, on one device and on four meshes."""

import functools
import itertools

import jax
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from llama2_jax.data.answer_batches import ComparedAnswers
from llama2_jax.data.dialogues import dialogue_batches
from llama2_jax.data.preferences import Comparison, preference_batches
from llama2_jax.data.pretraining import pretraining_batches
from llama2_jax.data.rankings import better_and_worse, ranking_batches
from llama2_jax.inference.generate import Sampling, generate
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import (
    LanguageModel,
    ScalarModel,
    init_language_model,
    init_scalar_model,
    parameter_shardings,
)
from llama2_jax.pipeline.model_training import language_model_step
from llama2_jax.pipeline.ppo_steps import PolicyObjective, ppo_critic_step, ppo_policy_step
from llama2_jax.pipeline.pretraining_mix import with_text
from llama2_jax.pipeline.reward_models import Scores
from llama2_jax.pipeline.rollouts import Frozen, Prompts, collect
from llama2_jax.sharding.batches import shard_batch
from llama2_jax.sharding.mesh import make_mesh, row_multiple
from llama2_jax.stages import dpo
from llama2_jax.stages.ranked_reward_model import ranked_reward_model_step
from llama2_jax.stages.reward_model import reward_model_step
from llama2_jax.text.dialogue import EncodedDialogue
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import TrainState, state_shardings
from tests.smallest import Letters

pytestmark = pytest.mark.slow

MODEL = ModelConfig(vocab_size=64, dim=32, layers=2, heads=8, kv_heads=8, ffn_hidden=32, max_length=32, remat="none")
# No clipping: Adam's first moment after one step is then (1 - b1) times the gradient.
OPTIMIZER = OptimizerConfig(clip=1e9)
MESHES = ((8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2))
EOS = 2
ROLLOUT_KEY = jax.random.key(4)


@pytest.fixture(scope="module", autouse=True)
def compiled_in_half_the_time():
    """The programs are split over devices as ever; they are only not made fast."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def mesh_of_shape(shape):
    return make_mesh(*shape, devices=jax.devices()[: np.prod(shape)])


def words(rng, longest, count):
    return [rng.integers(3, 64, rng.integers(2, longest + 1)).astype(np.int32) for _ in range(count)]


@functools.cache
def params(module):
    """Large enough weights that answers differ and gradients of all layers count."""
    init = init_language_model if module is LanguageModel else init_scalar_model
    return jax.tree.map(lambda array: np.asarray(array) * (4 if array.ndim > 1 else 1), init(MODEL, jax.random.key(0)))


def pretraining_batch(mesh):
    rng = np.random.default_rng(0)
    documents = {"books": [one.tolist() for one in words(rng, 40, 60)]}
    return next(iter(pretraining_batches(documents, {"books": 1.0}, 32, 16, 0, bos_id=1, eos_id=EOS)))


def finetuning_batch(mesh):
    rng = np.random.default_rng(1)
    dialogues = [EncodedDialogue(one, (np.arange(len(one)) >= len(one) // 2)) for one in words(rng, 20, 60)]
    return next(iter(dialogue_batches({"chat": dialogues}, 32, 16, 1, 0)))


def comparisons_batch(mesh, labels=None):
    rng = np.random.default_rng(2)
    pairs = zip(words(rng, 16, 24), words(rng, 16, 24), strict=True)
    comparisons = [
        Comparison(chosen, rejected, "better", float(index % 3) / 3, (index % 2 == 0, index % 4 == 0), (1, 1))
        for index, (chosen, rejected) in enumerate(pairs)
    ]
    options = {"accumulation": 2, "row_multiple": row_multiple(mesh), "labels": labels and labels(comparisons)}
    return next(iter(preference_batches(comparisons, 24, 32, 0, **options)))


def policy_pairs_batch(mesh):
    """The same comparisons as DPO's: all but the first token is the answer's, and the reference finds it unlikely."""

    def labels(comparisons):
        sizes = [np.asarray([len(ids) - 1 for ids in side], np.int32) for side in sides(comparisons)]
        return dict(zip(dpo.LABELS, (*(np.float32(-4.5) * size for size in sizes), *sizes), strict=True))

    return comparisons_batch(mesh, labels)


def rankings_batch(mesh):
    """Of 3 to 5 answers to a prompt."""
    rng, made = np.random.default_rng(5), []
    for index in range(8):
        answers = words(rng, 16, 3 + index % 3)
        made.append(ComparedAnswers(answers, better_and_worse(answers, range(len(answers)))))
    return next(iter(ranking_batches(made, 8, 32, 0, accumulation=2, row_multiple=row_multiple(mesh))))


def sides(comparisons):
    return [one.chosen for one in comparisons], [one.rejected for one in comparisons]


class FirstIds:
    """Stands for the reward models: answers of small ids are better."""

    def score(self, rows):
        logit = np.asarray([-np.mean(row["tokens"]) / 10 for row in rows], np.float32)
        return Scores(logit, logit, logit)


PROMPTS = [one.tolist() for one in words(np.random.default_rng(3), 9, 16)]


@functools.cache
def experience():
    config = ConfigDict({
        "temperature": 1.0, "max_new_tokens": 8, "kl_coefficient": 0.01, "gamma": 1.0, "lambda_": 0.95,
        "missing_eos_penalty": 0.0, "whiten_advantages": True, "advantages": "critic", "samples_per_prompt": 1,
        "whiten_by_tag": False,
    })  # fmt: skip
    policy, critic = jax.device_put(params(LanguageModel)), jax.device_put(params(ScalarModel))
    reference = jax.tree.map(lambda array: array * 0.9, policy)
    frozen = Frozen(MODEL, reference, FirstIds(), Letters())
    prompts = Prompts([{"messages": [], "safety": False}] * len(PROMPTS), PROMPTS)
    return collect(config, frozen, policy, critic, prompts, ROLLOUT_KEY)


def rollouts_batch(mesh):
    return experience().minibatch(range(16), 32, row_multiple(mesh, accumulation=2))


def mixed_batch(mesh):
    """Rollouts with rows of text behind them, of which there are fewer than the mesh splits."""
    text = {name: array[:3] for name, array in pretraining_batch(mesh).items()}
    return with_text(rollouts_batch(mesh), text, row_multiple(mesh, accumulation=2))


STAGES = {
    "pretraining": (LanguageModel, pretraining_batch, functools.partial(language_model_step, MODEL, OPTIMIZER, 2)),
    "fine-tuning": (LanguageModel, finetuning_batch, functools.partial(language_model_step, MODEL, OPTIMIZER, 2)),
    "reward model": (ScalarModel, comparisons_batch, functools.partial(reward_model_step, MODEL, OPTIMIZER, 1.0, 2)),
    "ranked reward model": (
        ScalarModel,
        rankings_batch,
        functools.partial(ranked_reward_model_step, MODEL, OPTIMIZER, 2),
    ),
    "dpo": (
        LanguageModel,
        policy_pairs_batch,
        functools.partial(dpo.dpo_step, MODEL, OPTIMIZER, dpo.Objective(0.1, 0.1), 2),
    ),
    "ppo policy": (
        LanguageModel,
        rollouts_batch,
        functools.partial(ppo_policy_step, MODEL, OPTIMIZER, PolicyObjective(0.2, 1.0), 2),
    ),
    "ppo policy with text": (
        LanguageModel,
        mixed_batch,
        functools.partial(ppo_policy_step, MODEL, OPTIMIZER, PolicyObjective(0.2, 1.0, 0.0, 3.0), 2),
    ),
    "ppo critic": (ScalarModel, rollouts_batch, functools.partial(ppo_critic_step, MODEL, OPTIMIZER, 0.2, 2)),
}


@functools.cache
def one_step(stage, shape):
    """The metrics and the gradient of one step on a mesh."""
    module, batch_of, step_on = STAGES[stage]
    mesh = mesh_of_shape(shape)
    optimizer, start = make_optimizer(OPTIMIZER), params(module)
    moments = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(optimizer.init, start))
    places = state_shardings(optimizer, parameter_shardings(module(MODEL), mesh))
    state = jax.device_put(TrainState(np.int32(0), start, moments), places)
    batch = {name: array for name, array in batch_of(mesh).items() if name != "ids"}
    state, metrics = step_on(mesh)(state, shard_batch(batch, mesh), np.float32(1e-3))
    moments = next(part for part in state.opt_state if isinstance(part, optax.ScaleByAdamState))
    return jax.device_get(metrics), jax.tree.map(lambda mu: np.asarray(mu) / (1 - OPTIMIZER.b1), moments.mu)


# Fine-tuning has the step of pretraining; the networks are those of pretraining and of the policy, but for their heads.
ALL_MESHES = ("pretraining", "ppo policy")


@pytest.mark.parametrize(
    ("stage", "shape"),
    [*itertools.product(ALL_MESHES, MESHES), *((stage, MESHES[-1]) for stage in STAGES if stage not in ALL_MESHES)],
    ids=str,
)
def test_loss_and_gradients_are_those_of_one_device(stage, shape):
    wanted_metrics, wanted = one_step(stage, (1, 1, 1))
    metrics, gradients = one_step(stage, shape)
    assert wanted_metrics["grad_norm"] > 0.01
    for name, value in wanted_metrics.items():
        # The same float32 sums in another order.
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    for (path, one), other in zip(jax.tree.leaves_with_path(wanted), jax.tree.leaves(gradients), strict=True):
        largest = np.abs(one).max()
        assert largest > 0, path
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-5 * largest, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_generation_gives_the_tokens_of_one_device(shape):
    wanted = [response.tolist() for response in experience().responses]
    assert len({tuple(one) for one in wanted}) > 8
    policy = jax.device_put(params(LanguageModel), parameter_shardings(LanguageModel(MODEL), mesh_of_shape(shape)))
    samples = generate(MODEL, policy, PROMPTS, Sampling(1.0, 1.0, 8), ROLLOUT_KEY, EOS)
    assert [sample.tokens.tolist() for sample in samples] == wanted
