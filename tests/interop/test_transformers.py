"""Beside transformers: its models read here, ours read there, give the same numbers."""

import dataclasses

import jax
import numpy as np
import pytest

from llama2_jax.inference.generate import Sampling, generate
from llama2_jax.inference.score import rewards
from llama2_jax.interop.huggingface import open_huggingface
from llama2_jax.interop.huggingface_export import write_huggingface
from llama2_jax.interop.loading import load_params
from llama2_jax.models.config import ModelConfig
from llama2_jax.models.llama import LanguageModel
from tests.random_model import GROUPED, MULTI_HEAD, as_tree, in_memory, random_arrays

torch = pytest.importorskip("torch", reason="the reference is transformers with torch")
transformers = pytest.importorskip("transformers", reason="the reference is transformers with torch")

# Float32 sums in another order; the issue's own bound.
TOLERANCE = 1e-4
SHAPES = {
    "multi_head": MULTI_HEAD,
    "grouped": GROUPED,
    "multi_query": ModelConfig(50, dim=40, layers=4, heads=5, kv_heads=1, ffn_hidden=64, max_length=512, norm_eps=1e-6),
    "other_theta": dataclasses.replace(GROUPED, rope_theta=1e6, layers=1),
}
shapes = pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)


def reference(config, **changes):
    """transformers' own model of the sizes, with its own random weights."""
    torch.manual_seed(0)
    described = transformers.LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.dim,
        intermediate_size=config.ffn_hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        max_position_embeddings=config.max_length,
        rms_norm_eps=config.norm_eps,
        rope_theta=config.rope_theta,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        initializer_range=0.15,
        **changes,
    )
    return transformers.LlamaForCausalLM(described).eval()


def logits_of(model, tokens, mask=None):
    """The reference's logits, with positions that count the tokens that are no padding."""
    mask = np.ones_like(tokens) if mask is None else mask
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    with torch.no_grad():
        out = model(torch.tensor(tokens), attention_mask=torch.tensor(mask), position_ids=torch.tensor(positions))
    return out.logits.numpy()


def our_logits(config, params, tokens, mask=None, start=0):
    mask = np.ones_like(tokens) if mask is None else mask
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0) + start
    return np.asarray(LanguageModel(config).apply({"params": params}, tokens, positions, mask))


def some_tokens(config, rows=3, length=40):
    return np.random.default_rng(1).integers(0, config.vocab_size, (rows, length))


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES)
def saved(request, tmp_path_factory):
    """A reference model, saved by transformers and opened here: config, theirs, ours."""
    model = reference(request.param)
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    checkpoint = open_huggingface(folder)
    assert checkpoint.config == request.param
    return checkpoint.config, model, load_params(checkpoint)


def test_logits_are_the_same(saved):
    config, model, params = saved
    tokens = some_tokens(config)
    theirs = logits_of(model, tokens)
    assert np.abs(theirs).max() > 1
    assert np.abs(our_logits(config, params, tokens) - theirs).max() < TOLERANCE


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_are_the_same_with_padding(saved, side):
    config, model, params = saved
    tokens, mask = some_tokens(config), np.ones((3, 40), int)
    for row, padding in enumerate((0, 7, 25)):
        mask[row, : padding if side == "left" else 0] = 0
        mask[row, 40 - padding if side == "right" else 40 :] = 0
    difference = np.abs(our_logits(config, params, tokens, mask) - logits_of(model, tokens, mask))
    assert difference[mask == 1].max() < TOLERANCE


@pytest.mark.slow
def test_logits_are_the_same_at_long_positions(saved):
    config, model, params = saved
    tokens = some_tokens(config, rows=1, length=config.max_length)
    assert np.abs(our_logits(config, params, tokens) - logits_of(model, tokens)).max() < TOLERANCE
    # Rotary positions far beyond the length; only their differences matter, in exact arithmetic.
    far = our_logits(config, params, tokens[:, :40], start=4000)
    with torch.no_grad():
        theirs = model(torch.tensor(tokens[:, :40]), position_ids=torch.arange(4000, 4040)[None]).logits.numpy()
    assert np.abs(far - theirs).max() < TOLERANCE


@pytest.mark.slow
def test_greedy_continuations_are_the_same(saved):
    config, model, params = saved
    prompts = [list(map(int, row[:size])) for row, size in zip(some_tokens(config), (3, 17, 40), strict=True)]
    never = config.vocab_size  # an EOS that is no token: all 200 are wanted
    config = dataclasses.replace(config, generation_rows=3)
    ours = generate(config, params, prompts, Sampling(temperature=0, max_new_tokens=200), jax.random.key(0), never)
    for prompt, sample in zip(prompts, ours, strict=True):
        theirs = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
            max_new_tokens=200, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        assert sample.tokens.tolist() == theirs[0, len(prompt) :].tolist()


@shapes
def test_transformers_gives_our_numbers(config, tmp_path):
    arrays = random_arrays(config)
    write_huggingface(in_memory(config, arrays), tmp_path, np.dtype(np.float32), file_bytes=20_000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    model, told = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values())
    assert model.dtype == torch.float32
    tokens = some_tokens(config)
    difference = logits_of(model.eval(), tokens) - our_logits(config, as_tree(arrays), tokens)
    assert np.abs(difference).max() < TOLERANCE


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_sixteen_bits_come_and_go_unchanged(name, tmp_path):
    model = reference(GROUPED).to(getattr(torch, name))
    model.save_pretrained(tmp_path / "theirs")
    checkpoint = open_huggingface(tmp_path / "theirs")
    assert (str(checkpoint.dtype), checkpoint.config.compute_dtype) == (name, "bfloat16")
    (tmp_path / "ours").mkdir()
    write_huggingface(checkpoint, tmp_path / "ours", checkpoint.dtype)
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype="auto")
    assert str(back.dtype) == f"torch.{name}"
    for (name, theirs), (other, ours) in zip(model.named_parameters(), back.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(theirs, ours)


def test_the_older_bin_files_are_read(tmp_path):
    model = reference(GROUPED)
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    state = {**model.state_dict(), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    torch.save(state, tmp_path / "pytorch_model.bin")
    tokens = some_tokens(GROUPED)
    params = load_params(open_huggingface(tmp_path))
    assert np.abs(our_logits(GROUPED, params, tokens) - logits_of(model, tokens)).max() < TOLERANCE


def test_a_tied_head_is_the_embedding(tmp_path):
    model = reference(GROUPED, tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    params = load_params(open_huggingface(tmp_path))
    np.testing.assert_array_equal(params["head"]["kernel"], params["trunk"]["embedding"].T)
    tokens = some_tokens(GROUPED)
    assert np.abs(our_logits(GROUPED, params, tokens) - logits_of(model, tokens)).max() < TOLERANCE


@pytest.mark.slow
@shapes
def test_a_reward_model_gives_its_scores_there_and_comes_back(config, tmp_path):
    arrays = random_arrays(config, "scalar")
    write_huggingface(in_memory(config, arrays, "scalar"), tmp_path, np.dtype(np.float32))
    model, told = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values())
    # Answers end with the EOS, which is read; what follows is padding, by the id that no text yields.
    sequences = [[1, *range(3, size), 2] for size in (5, 11, 30)]
    padded = np.zeros((3, 30), int)
    for row, sequence in enumerate(sequences):
        padded[row, : len(sequence)] = sequence
    with torch.no_grad():
        scores = model(torch.tensor(padded), attention_mask=torch.tensor((padded != 0).astype(int))).logits[:, 0]
    ours = rewards(config, as_tree(arrays), sequences)
    assert np.ptp(ours) > 0.1
    np.testing.assert_allclose(scores.numpy(), ours, atol=TOLERANCE)
    back = load_params(open_huggingface(tmp_path))
    jax.tree.map(np.testing.assert_array_equal, back, as_tree(arrays))


def test_the_tokenizer_comes_with_it(tokenizer_model, tmp_path):
    from llama2_jax.text.dialogue import encode_prompt
    from llama2_jax.text.tokenizer import Tokenizer

    config = dataclasses.replace(GROUPED, vocab_size=300)
    write_huggingface(
        in_memory(config, random_arrays(config), tokenizer=tokenizer_model), tmp_path, np.dtype(np.float32)
    )
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), Tokenizer.load(tokenizer_model)
    for text in ("some words", "  here and \n\n there ", "", "[INST] x [/INST]", "日本 🙂 12"):
        assert theirs(text).input_ids == ours.encode(text, bos=True)
        assert theirs.decode(theirs(text).input_ids, skip_special_tokens=True) == text
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " some words? "},
        {"role": "assistant", "content": "here "},
        {"role": "user", "content": "and"},
    ]
    for dialogue in (messages, messages[1:2], messages[1:], messages[:2]):
        there = theirs.apply_chat_template(dialogue, return_dict=False)
        assert there == encode_prompt(ours, dialogue)
    with pytest.raises(Exception, match="roles must be user, assistant"):
        theirs.apply_chat_template(messages[2:])
