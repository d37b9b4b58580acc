"""The whole recipe as small as it can be, for tests: every stage of an experiment in seconds, and no quality."""

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.runtime import Runtime
from llama2_jax.sharding.mesh import make_mesh
from llama2_jax.text.chat_formats import LLAMA2

# The sizes of a stage of each role.
SMALLEST = {
    "pretraining": {"steps": 12, "batch_size": 8, "warmup_steps": 2, "save_every": 5, "log_every": 4,
                    "evaluate_every": 5, "held_out_batches": 2},
    "annotation": {"test_comparisons": 10},
    "annotator_model": {"pairs_per_batch": 16, "save_every": 2},
    "reward_model": {"pairs_per_batch": 16, "save_every": 2},
    "reward_ablation": {"pairs_per_batch": 16, "save_every": 2},
    "reward_scaling": {"pairs_per_batch": 16, "save_every": 2},
    "ranking": {"judged_answers": 60},
    "ranked_reward_model": {"prompts_per_batch": 4, "save_every": 2, "offset_demonstrations": 8},
    "text_loss": {"held_out_batches": 2},
    "dpo": {"pairs_per_batch": 16, "save_every": 2, "log_every": 1, "evaluate_every": 3, "held_out_batches": 1},
    "general_reward_model": {"pairs_per_batch": 16, "save_every": 2},
    "rejection_sampling": {"samples_per_prompt": 2, "sweep_samples_per_prompt": 3, "sweep_prompts": 4, "bag_size": 30},
    "instructions": {"tasks": 20},
    "evaluation": {"instruction_turns": (2,)},
    "tools": {"max_new_tokens": 24},  # what the prompt leaves of the context
    "ppo": {
        "iterations": 4, "batch_size": 16, "minibatch_size": 8, "evaluate_every": 2, "critic_warmup_iterations": 1,
        # All iterations, whatever the policy comes to.
        "warmup_steps": 1, "guarded": False,
    },
}  # fmt: skip


def shrink(config: ConfigDict, cache: str = "") -> ConfigDict:
    """Turns an experiment's sizes down, in place; the stages and how they hang together stay."""
    config.compilation_cache = cache
    # Eight copies of the parameters are saved in eight parts each: a run of rlhf_v5 took 20 s more of 150.
    config.mesh = {"data": 1, "fsdp": -1, "tensor": 1}
    config.answer_tokens = 16
    config.model.update({"max_length": 320, "generation_rows": 32, "scoring_tokens": 2048})
    config.model.update({"dim": 32, "layers": 2, "heads": 2, "kv_heads": 1, "ffn_hidden": 64, "vocab_size": 600})
    for name in config.stages:
        part = config[name]
        part.update(SMALLEST.get(part.role, {}))
        if "length" in part:  # a third of the context would not hold every comparison
            part.length = config.model.get_ref("max_length")
        if "finetune" in part:  # nor does the context hold dialogues of twenty turns
            part.finetune.update({"batch_size": 8, "save_every": 4, "evaluate_every": 3, "too_long": "drop"})
        _few_records(part)
    return config


def _few_records(part: ConfigDict) -> None:
    """Every source of the miniature gives few records."""
    for value in part.values():
        if isinstance(value, ConfigDict):
            if "function" in value and "arguments" in value:
                count = 40
                if "instruction_dialogues" in value.function:  # an answer of every version in every turn
                    count, value.arguments.turns = 12, 2
                if "ghost_attention_dialogues" in value.function:  # what the context holds
                    value.arguments.turns = (2, 4)
                for field, most in (("count", count), ("documents", 60)):
                    if field in value.arguments:
                        value.arguments[field] = min(value.arguments[field], most)
            _few_records(value)


def smallest_model(**changes) -> ModelConfig:
    """A network that compiles in a moment; its vocabulary holds ASCII, as `Letters` reads it."""
    sizes = {"vocab_size": 128, "dim": 16, "layers": 1, "heads": 2, "kv_heads": 1, "ffn_hidden": 32, "max_length": 64}
    return ModelConfig(**{**sizes, "scan_layers": False, **changes})


def smallest_runtime(folder, **changes) -> Runtime:
    """What a stage is handed, on a single device."""
    return Runtime(**{
        "stage": "the_stage",
        "folder": epath.Path(folder),
        "data_root": str(folder),
        "seed": 5,
        "experiment_seed": 0,
        "key": jax.random.key(5),
        "mesh": make_mesh(data=1, fsdp=1, tensor=1, devices=jax.devices()[:1]),
        "model": smallest_model(),
        **changes,
    })  # fmt: skip


class Letters:
    """A tokenizer with an id for each ASCII character, so that a test can read what it expects."""

    bos_id, eos_id, end_id, vocab_size = 1, 2, 2, 128
    chat_format = LLAMA2

    def encode(self, text: str, bos: bool = False, eos: bool = False) -> list[int]:
        return [self.bos_id] * bos + [ord(letter) for letter in text] + [self.eos_id] * eos

    def encode_many(self, texts) -> list[np.ndarray]:
        return [np.asarray(self.encode(text), np.int32) for text in texts]

    def decode(self, ids) -> str:
        return "".join(chr(one) for one in ids if one > self.eos_id)

    def decode_after(self, before, ids) -> str:
        return self.decode(ids)
