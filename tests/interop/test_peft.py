"""Adapters in PEFT's layout: there and back, and beside the peft library itself."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from etils import epath

import llama2_jax
from llama2_jax import convert
from llama2_jax.interop.checkpoint import BadCheckpoint
from llama2_jax.interop.grouped_queries import with_kv_heads
from llama2_jax.loading import open_checkpoint
from llama2_jax.models.adapters import AdapterConfig, init_trained
from llama2_jax.training.adaptation import Adaptation
from llama2_jax.training.checkpoints import Checkpoints
from llama2_jax.training.model_folder import load_model, save_model_description
from llama2_jax.training.optimizer import OptimizerConfig, make_optimizer
from llama2_jax.training.state import create_state
from tests.random_model import GROUPED, as_tree, random_arrays, train_like

ADAPTERS = AdapterConfig(rank=3, alpha=6.0, targets=("query", "key", "down"))
TOKENS = np.random.default_rng(1).integers(0, GROUPED.vocab_size, (3, 40))


def write_adapted(folder, head="language", adapters=ADAPTERS):
    """A base and a model of adapters beside it, as stages leave them."""
    train_like(folder / "base", GROUPED, random_arrays(GROUPED))
    trained = init_trained(GROUPED, head, adapters, jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), 32))
    trained = jax.tree.map(lambda leaf: leaf + 0.2 * jax.random.normal(next(keys), leaf.shape), trained)
    save_model_description(folder / "adapted", GROUPED, head, Adaptation.to(folder / "base", adapters))
    with Checkpoints(epath.Path(folder) / "adapted/checkpoints") as checkpoints:
        checkpoints.save(3, create_state(trained, make_optimizer(OptimizerConfig())))
    return jax.device_get(trained)


def our_outputs(loaded):
    positions = np.broadcast_to(np.arange(40), TOKENS.shape)
    return np.asarray(loaded.model.apply({"params": loaded.params}, TOKENS, positions, np.ones_like(TOKENS)))


@pytest.mark.parametrize("head", ["language", "scalar"])
def test_every_reader_of_a_model_reads_adapters_as_the_merged_one(tmp_path, head):
    write_adapted(tmp_path, head)
    params = load_model(tmp_path / "adapted", head=head).params
    loaded = llama2_jax.load(tmp_path / "adapted", head=head)
    # One sums the product a layer at a time.
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6), loaded.params, params)
    convert.convert(open_checkpoint(tmp_path / "adapted"), tmp_path / "whole", "orbax")
    (tmp_path / "base").rename(tmp_path / "gone")
    whole = load_model(tmp_path / "whole", head=head).params
    jax.tree.map(np.testing.assert_array_equal, whole, loaded.params)


@pytest.mark.parametrize("head", ["language", "scalar"])
def test_adapters_go_there_and_back(tmp_path, head):
    trained = write_adapted(tmp_path, head)
    opened = open_checkpoint(tmp_path / "adapted")
    convert.convert(opened, tmp_path / "peft", "peft")
    again = open_checkpoint(tmp_path / "peft")
    assert (again.kind, again.head, again.adapters.config) == ("peft", head, ADAPTERS)
    for name, factors in trained["trunk"]["layers"].items():
        for factor, layers in factors.items():
            for layer, wanted in enumerate(layers):
                np.testing.assert_array_equal(again.adapters.read(name, factor, layer), wanted)
    if head == "scalar":
        np.testing.assert_array_equal(again.read("head/kernel"), trained["head"]["kernel"])
    np.testing.assert_array_equal(again.read("trunk/layers/query", 1), opened.read("trunk/layers/query", 1))
    part = (slice(5, 20), slice(30, 48))
    np.testing.assert_allclose(opened.read("trunk/layers/query", 1, part),
                               opened.read("trunk/layers/query", 1)[part], atol=1e-6)  # fmt: skip


def test_a_16_bit_adapter_of_another_base_is_written(tmp_path):
    write_adapted(tmp_path)
    checkpoint = open_checkpoint(tmp_path / "adapted")
    convert.convert(checkpoint, tmp_path / "peft", "peft", "bfloat16", base="hf://some/model")
    described = json.loads((tmp_path / "peft/adapter_config.json").read_text())
    assert described["base_model_name_or_path"] == "some/model"
    again = open_checkpoint(tmp_path / "peft", base=str(tmp_path / "base"))
    assert str(again.adapters.dtype) == "bfloat16"


def test_what_has_no_adapters_of_its_own_is_refused(tmp_path):
    write_adapted(tmp_path)
    with pytest.raises(BadCheckpoint, match="base is a whole model"):
        convert.convert(open_checkpoint(tmp_path / "base"), tmp_path / "peft", "peft")
    with pytest.raises(BadCheckpoint, match="is a whole model"):
        convert.convert(with_kv_heads(open_checkpoint(tmp_path / "adapted"), 1), tmp_path / "peft", "peft")
    assert not (tmp_path / "peft").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora is True, supported is False"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3', supported is 'LORA'"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern is {'q_proj': 4}"),
        ({"r": 4}, r"has shape \[3, 48\], expected \[4, 48\]"),
        ({"r": 0}, "adapters.rank is 0"),
        ({"base_model_name_or_path": None}, "names no base_model_name_or_path: give --base="),
        ({"modules_to_save": ["score"]}, "1 tensors are missing or not of Llama 2's layers, such as .*score"),
    ],
    ids=str,
)
def test_adapters_that_cannot_be_read_are_named(tmp_path, changes, message):
    write_adapted(tmp_path)
    convert.convert(open_checkpoint(tmp_path / "adapted"), tmp_path / "peft", "peft")
    path = tmp_path / "peft/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(BadCheckpoint, match=message):
        open_checkpoint(tmp_path / "peft")


@pytest.fixture
def peft():
    pytest.importorskip("torch", reason="the reference is peft with transformers and torch")
    return pytest.importorskip("peft", reason="the reference is the peft library: pip install -e .[reference]")


def their_logits(model):
    import torch

    with torch.no_grad():
        return model.eval()(torch.tensor(TOKENS)).logits.numpy()


# peft itself uses what transformers will rename.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_peft_computes_what_we_do_from_our_adapters(tmp_path, peft):
    import transformers

    write_adapted(tmp_path)
    convert.convert(open_checkpoint(tmp_path / "base"), tmp_path / "theirs", "huggingface")
    adapted = open_checkpoint(tmp_path / "adapted")
    convert.convert(adapted, tmp_path / "peft", "peft", base=str(tmp_path / "theirs"))
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", dtype="float32")
    plain = their_logits(base)
    found = their_logits(peft.PeftModel.from_pretrained(base, tmp_path / "peft"))
    assert np.abs(found - plain).max() > 1
    # Float32 sums in another order, of logits of about 10.
    np.testing.assert_allclose(our_outputs(llama2_jax.load(tmp_path / "adapted")), found, atol=2e-3)


# peft itself uses what transformers will rename.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("options", [{}, {"use_rslora": True, "target_modules": ["q_proj", "v_proj"]}], ids=str)
def test_we_compute_what_peft_does_from_its_adapters(tmp_path, peft, options):
    import torch
    import transformers

    train_like(tmp_path / "base", GROUPED, random_arrays(GROUPED))
    convert.convert(open_checkpoint(tmp_path / "base"), tmp_path / "theirs", "huggingface")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", dtype="float32")
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "init_lora_weights": False, **options}
    torch.manual_seed(0)
    model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **settings))
    found = their_logits(model)
    model.save_pretrained(tmp_path / "adapter")
    loaded = llama2_jax.load(tmp_path / "adapter")
    plain = our_outputs(dataclasses.replace(loaded, params=as_tree(random_arrays(GROUPED))))
    assert np.abs(found - plain).max() > 0.5
    np.testing.assert_allclose(our_outputs(loaded), found, atol=2e-3)
    convert.convert(open_checkpoint(tmp_path / "adapter"), tmp_path / "merged", "huggingface")
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="float32")
    np.testing.assert_allclose(their_logits(merged), found, atol=2e-3)
