"""Beside TRL: its DPOTrainer's loss, metrics and gradient of one batch are those of the stage's step."""

import jax
import numpy as np
import pytest

from llama2_jax.data.preferences import Comparison, preference_batches
from llama2_jax.interop.huggingface import open_huggingface
from llama2_jax.interop.loading import load_params
from llama2_jax.sharding.mesh import make_mesh
from llama2_jax.stages import dpo
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import create_state

torch = pytest.importorskip("torch", reason="the reference is TRL with torch: pip install trl")
trl = pytest.importorskip("trl", reason="the reference is TRL: pip install trl")
datasets = pytest.importorskip("datasets", reason="TRL reads its data with datasets")
tokenizers = pytest.importorskip("tokenizers", reason="TRL needs a tokenizer")
transformers = pytest.importorskip("transformers", reason="the reference is TRL with transformers")

# TRL names fields that transformers has renamed.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::FutureWarning")]

BETA, VOCABULARY, LENGTH = 0.1, 64, 24


def network(seed):
    torch.manual_seed(seed)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=LENGTH, rms_norm_eps=1e-5, initializer_range=0.15,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        )
    )  # fmt: skip


def comparisons():
    """Prompts and answers of different lengths, the two answers of a pair behind the same prompt."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(6):
        prompt, *answers = (rng.integers(3, VOCABULARY, size) for size in rng.integers(2, 12, 3))
        sequences = (np.concatenate([prompt, answer]).astype(np.int32) for answer in answers)
        made.append(Comparison(*sequences, "", 0.0, None, tuple(map(len, answers))))
    return made


def trainer(folder, policy, reference):
    """TRL's trainer; its data set is a stand-in, since the batch is given."""
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({str(i): i for i in range(VOCABULARY)}, unk_token="0"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0", eos_token="2")
    data = datasets.Dataset.from_list([{"prompt": "3 4", "chosen": "5 6", "rejected": "7 8"}] * 2)
    arguments = trl.DPOConfig(
        output_dir=str(folder), beta=BETA, report_to="none", use_cpu=True, bf16=False, disable_dropout=True,
        gradient_checkpointing=False, max_length=LENGTH,
    )  # fmt: skip
    return trl.DPOTrainer(
        model=policy, ref_model=reference, args=arguments, train_dataset=data, processing_class=tokenizer
    )


def padded_batch(pairs):
    """TRL's batch: all chosen answers, then all rejected ones, padded on the right."""
    rows = [
        (getattr(one, side), one.answer_sizes[place]) for place, side in enumerate(dpo.Pairs._fields) for one in pairs
    ]
    arrays = {name: np.zeros((len(rows), LENGTH), int) for name in ("input_ids", "attention_mask", "completion_mask")}
    for row, (ids, size) in enumerate(rows):
        arrays["input_ids"][row, : len(ids)] = ids
        arrays["attention_mask"][row, : len(ids)] = 1
        arrays["completion_mask"][row, len(ids) - size : len(ids)] = 1
    return {name: torch.tensor(array) for name, array in arrays.items()}


def our_step(folders, pairs):
    """The metrics of the stage's own step, and its reference's log-probabilities."""
    policy, reference = (open_huggingface(folder) for folder in folders)
    mesh = make_mesh(devices=jax.devices()[:1])
    labels = dict(
        zip(
            dpo.LABELS,
            (
                *dpo.pair_log_probabilities(reference.config, load_params(reference), pairs),
                *np.asarray([one.answer_sizes for one in pairs], np.int32).T,
            ),
            strict=True,
        )
    )
    batch = dict(next(iter(preference_batches(pairs, len(pairs), LENGTH, 0, labels=labels))))
    del batch["ids"]
    optimizer = OptimizerConfig(clip=1e9)
    params = jax.device_put(load_params(policy), jax.NamedSharding(mesh, jax.P()))
    step = dpo.dpo_step(policy.config, optimizer, dpo.Objective(BETA, 0.0), 1, mesh)
    _, metrics = step(create_state(params, make_optimizer(optimizer)), batch, np.float32(1e-3))
    return {name: float(value) for name, value in metrics.items()}


def test_loss_metrics_and_gradient_are_those_of_trl(tmp_path):
    policy, reference, pairs = network(0), network(1), comparisons()
    folders = [tmp_path / "policy", tmp_path / "reference"]
    for model, folder in zip((policy, reference), folders, strict=True):
        model.save_pretrained(folder)
    theirs = trainer(tmp_path / "trl", policy, reference)
    theirs.model.train()
    loss = theirs.compute_loss(theirs.model, padded_batch(pairs))
    loss.backward()
    gradients = [one.grad for one in theirs.model.parameters() if one.grad is not None]
    grad_norm = torch.sqrt(sum((one.double() ** 2).sum() for one in gradients)).item()
    found, logged = our_step(folders, pairs), {name: np.mean(v) for name, v in theirs._metrics["train"].items()}
    assert abs(loss.item() - np.log(2)) > 0.05, "the two models differ"
    # Float32 sums of log-probabilities of size 40 in another order.
    assert found["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert found["grad_norm"] == pytest.approx(grad_norm, rel=1e-4)
    for ours, name in {
        "chosen_reward": "rewards/chosen", "rejected_reward": "rewards/rejected", "margin": "rewards/margins",
        "accuracy": "rewards/accuracies",
    }.items():  # fmt: skip
        assert found[ours] == pytest.approx(logged[name], rel=1e-4), name
