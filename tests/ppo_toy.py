"""A toy for PPO: prompts of a letter, and a reward for ids below 64."""

import types

import jax
import numpy as np
from ml_collections import ConfigDict

from llama2_jax.models.llama import init_language_model, init_scalar_model
from llama2_jax.pipeline import encoding
from llama2_jax.pipeline.reward_models import Scores
from llama2_jax.stages import ppo
from llama2_jax.training.metrics import read_metrics
from llama2_jax.training.model_folder import load_model
from tests.random_model import train_like
from tests.smallest import Letters, smallest_model, smallest_runtime

MODEL = smallest_model(max_length=32)
PIECEWISE = {
    "function": "llama2_jax.pipeline.reward_models.piecewise_reward",
    "arguments": {"safety_threshold": 0.15},
}


def prompts(*, seed, count):
    del seed
    return [{"messages": [{"role": "user", "content": "abcdef"[index % 6]}], "safety": False} for index in range(count)]


def texts(*, seed, count):
    """Documents of 20 to 40 letters; the same few words over and over can be learnt."""
    del seed
    return [{"text": "the river and the stone "[: 20 + index % 5] * 2} for index in range(count)]


def text_mix(coefficient):
    source = {"function": f"{__name__}.texts", "format": "text", "arguments": {"count": 12}}
    return {"coefficient": coefficient, "batch_size": 3, "sources": {"made": source}}


def half_of_the_letters(sequences):
    """The share of an answer's ids below 64, as a logit between -3 and 3; chance gives about 0."""
    answers = [np.asarray(sequence)[1 + len("[INST] a [/INST]") :] for sequence in sequences]
    return np.asarray([6 * np.mean(answer < 64) - 3 for answer in answers])


class Reward:
    """Stands for both reward models; the held-out prompts are known by their number."""

    def __init__(self, helpfulness, logit=half_of_the_letters, held_out=()):
        self.helpfulness, self.logit, self.held_out = helpfulness, logit, list(held_out)

    def score(self, rows):
        sequences = [row["tokens"] for row in rows]
        logit = self.logit(sequences)
        if len(sequences) == 10 and self.held_out:
            logit = np.full(10, self.held_out.pop(0))
        return Scores(logit, logit, logit)


def trainer(tmp_path, monkeypatch):
    """Returns what runs the stage on the toy: 24 prompts an iteration, 10 held-out ones."""
    runtime = smallest_runtime(tmp_path, model=MODEL)
    everywhere = jax.NamedSharding(runtime.mesh, jax.P())
    policy = jax.device_put(init_language_model(MODEL, jax.random.key(0)), everywhere)
    critic = jax.device_put(init_scalar_model(MODEL, jax.random.key(1)), everywhere)
    train_like(runtime.folder / "policy", MODEL, flat(policy))
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda path: Letters())
    # The best policy is read from where it was written.
    monkeypatch.setattr(
        ppo,
        "load_model",
        lambda folder, mesh, head: (
            types.SimpleNamespace(params=policy) if folder.name == "policy" else load_model(folder, mesh, head)
        ),
    )

    def run(reward=half_of_the_letters, held_out=(), **changes):
        monkeypatch.setattr(
            ppo, "load_reward_models", lambda inputs, runtime, threshold, frozen: Reward(critic, reward, held_out)
        )
        source = {"function": f"{__name__}.prompts", "format": "prompts"}
        config = ConfigDict({
            "prompts": {"made": {**source, "arguments": {"count": 96}}},
            "held_out_prompts": {"made": {**source, "arguments": {"count": 10}}},
            "iterations": 12, "batch_size": 24, "minibatch_size": 12, "accumulation": 1, "kl_coefficient": 0.01,
            "reward": PIECEWISE,
            "clip": 0.2, "value_clip": 0.2, "gamma": 1.0, "lambda_": 0.95, "temperature": 1.0, "max_new_tokens": 8,
            "missing_eos_penalty": 0.0, "whiten_advantages": True, "critic_warmup_iterations": 1,
            "whiten_by_tag": False,
            "critic_learning_rate": 1e-2, "evaluate_every": 4, "patience": 3, "learning_rate": 1e-2,
            "warmup_steps": 0, "warmup_fraction": 0.0, "final_learning_rate_fraction": 1.0,
            "guarded": True, "advantages": "critic", "samples_per_prompt": 1,
            "pretraining_mix": {"coefficient": 0.0}, "ema_decay": 0.0,
            "optimizer": {"b1": 0.9, "b2": 0.95, "eps": 1e-5, "weight_decay": 0.1, "clip": 1.0},
            "save_every": 4, "log_every": 1, "inputs": {}, **changes,
        })  # fmt: skip
        run.config, run.runtime = config, runtime
        inputs = {role: runtime.folder / role for role in ("tokenizer", "policy", "helpfulness", "safety")}
        before = jax.device_get(policy)
        results = ppo.run(config, inputs, runtime)
        rows = list(read_metrics(runtime.folder / "metrics.jsonl"))
        return results, rows, before, jax.device_get(load_model(runtime.folder).params)

    return run


def flat(params):
    leaves = jax.tree.leaves_with_path(jax.device_get(params))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def curve(rows, name):
    return [row[name] for row in rows if name in row]


def shapes(tree):
    return jax.tree.map(lambda array: (array.shape, array.dtype), tree)


def held_by(program):
    """The bytes of each model on the devices while a program runs."""
    return {one.name: one.parameter_bytes + one.optimizer_bytes for one in (*program.uses, *program.co_resident)}
