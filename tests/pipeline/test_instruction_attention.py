"""Attention to the system message by turn, against the NumPy model in float64."""

import dataclasses

import jax
import numpy as np
import pytest

from llama2_jax.models.llama import LanguageModel, parameter_shardings
from llama2_jax.pipeline import instruction_attention as measured
from llama2_jax.pipeline.conversations import Conversation
from llama2_jax.pipeline.device_programs import abstract_model
from llama2_jax.pipeline.instruction_attention import instruction_attention, instruction_attention_work
from llama2_jax.pipeline.sampling import Policy
from llama2_jax.sharding.mesh import make_mesh
from tests.models import reference_llama
from tests.random_model import sharpened_params
from tests.smallest import Letters, smallest_model

MODEL = smallest_model(max_length=192, dim=32, layers=2, heads=4, kv_heads=2)
SYSTEM = "Be kind."
# What stands before the system message: BOS and "[INST] <<SYS>>\\n".
FIRST = 1 + len("[INST] <<SYS>>\n")
# Weights up to 1, float32 against float64. Measured: at most 1e-7.
TOLERANCE = 1e-5


def conversation(answers, system=SYSTEM):
    messages = [{"role": "system", "content": system}]
    for index, answer in enumerate(answers):
        messages.append({"role": "user", "content": f"question {index}"})
        tokens = [*map(ord, f" {answer}"), Letters.eos_id]
        messages.append({"role": "assistant", "content": answer, "tokens": tokens})
    return Conversation(messages, [True] * len(answers))


CONVERSATIONS = [conversation(answers) for answers in (["yes", "no", "well"], ["a long answer"], ["x", "y", "z"])]


@pytest.fixture(scope="module")
def params():
    return sharpened_params(MODEL)


def expected(params, conversation, turn):
    """Written out for Letters, which has an id for each character: where the answer's tokens are predicted."""
    text, spans = "[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\n", []
    ids = []
    for user, answer in zip(conversation.messages[1::2], conversation.messages[2::2], strict=True):
        text = f"{text if not ids else '[INST] '}{user['content']} [/INST]"
        ids += [Letters.bos_id, *map(ord, text)]
        spans.append((len(ids) - 1, len(ids) - 1 + len(answer["tokens"])))
        ids += answer["tokens"]
    weights = reference_llama.attention_weights(params, MODEL, ids)
    start, stop = spans[turn - 1]
    return weights[:, :, start:stop, FIRST : FIRST + len(SYSTEM)].max(axis=(0, 1, 3)).mean()


def test_the_mean_over_answers_of_the_largest_attention(params):
    found = instruction_attention(Policy(MODEL, params, Letters()), CONVERSATIONS, (1, 3, 20))
    assert list(found) == ["1", "3", "20"] and found["20"] is None
    for turn, reached in ((1, CONVERSATIONS), (3, CONVERSATIONS[::2])):
        mean = np.mean([expected(params, one, turn) for one in reached])
        assert 0.02 < mean < 1 and found[str(turn)] == pytest.approx(mean, abs=TOLERANCE)


def test_turns_that_are_not_measured_after_the_last_one_change_nothing(params):
    policy = Policy(MODEL, params, Letters())
    whole = instruction_attention(policy, CONVERSATIONS, (1, 2, 3))
    part = instruction_attention(policy, CONVERSATIONS, (1,))
    assert part["1"] == pytest.approx(whole["1"], abs=TOLERANCE), "attention is causal"


def test_dialogues_without_system_message_or_answer_are_left_out(params):
    policy = Policy(MODEL, params, Letters())
    empty = [conversation(["yes"], system=""), conversation([])]
    assert instruction_attention(policy, empty, (1, 2)) == {"1": None, "2": None}
    assert instruction_attention(policy, [], (1, 2)) == {"1": None, "2": None}
    found = instruction_attention(policy, [*empty, CONVERSATIONS[0]], (1, 2))
    assert found["2"] == pytest.approx(expected(params, CONVERSATIONS[0], 2), abs=TOLERANCE)


def test_an_answer_cut_off_at_the_end_of_the_context_fits(params):
    """It has no EOS, and none is added."""
    full = conversation(["x"])
    prompt = FIRST + len("Be kind.\n<</SYS>>\n\nquestion 0 [/INST]")
    full.messages[2]["tokens"] = [ord("x")] * (MODEL.max_length - prompt)
    found = instruction_attention(Policy(MODEL, params, Letters()), [full], (1,))
    assert found["1"] == pytest.approx(expected(params, full, 1), abs=TOLERANCE)


def test_of_many_dialogues_some_are_read_evenly_spaced(params, monkeypatch):
    read = []

    def largest_attention(params, tokens, positions, segment_ids, system, **_):
        read.extend(Letters().decode(row[: ids.sum()])[-1] for row, ids in zip(tokens, segment_ids, strict=True))
        return np.zeros(tokens.shape)

    monkeypatch.setattr(measured, "largest_attention", largest_attention)
    instruction_attention(
        Policy(MODEL, params, Letters()), [conversation([letter]) for letter in "abcdefghijklmnop"], (1,)
    )
    assert read == list("acegikmo")


@pytest.mark.parametrize("sizes", [(1, 8, 1), (2, 2, 2)], ids=str)
def test_a_mesh_changes_nothing(params, sizes):
    mesh = make_mesh(*sizes)
    split = jax.device_put(params, parameter_shardings(LanguageModel(MODEL), mesh))
    alone, on_mesh = (
        instruction_attention(Policy(MODEL, one, Letters()), CONVERSATIONS * 2, (1, 2, 3)) for one in (params, split)
    )
    assert on_mesh == pytest.approx(alone, abs=TOLERANCE)


def test_the_dry_run_compiles_the_same_program():
    model = dataclasses.replace(MODEL, max_length=512)
    mesh = make_mesh(1, 8, 1)
    version = abstract_model("version", model, mesh)
    program = instruction_attention_work(model, mesh, version, ())
    compiled = program.compile()
    assert program.model_flops > 0
    # A device has a row: at least its map, at most all heads' scores and weights, of the attention and of the maps.
    map_bytes = 4 * model.max_length**2
    assert map_bytes < compiled.memory_analysis().temp_size_in_bytes < 4 * model.heads * map_bytes
