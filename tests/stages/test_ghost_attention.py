"""An instruction given once, kept to the end."""

import json
import types

import numpy as np
from ml_collections import ConfigDict

from llama2_jax.pipeline import conversations, encoding, sampling
from llama2_jax.pipeline.conversations import Conversation
from llama2_jax.pipeline.encoding import encode_row
from llama2_jax.pipeline.stage_files import read_jsonl
from llama2_jax.stages import ghost_attention
from llama2_jax.stages.ghost_attention import choose_instructions, ghost_dialogue, user_turns
from llama2_jax.text.dialogue import encode_prompt
from tests.smallest import Letters, smallest_runtime

INSTRUCTIONS = [{"instruction": f"Act as {name}.", "terse": f"Figure: {name}."} for name in ("Napoleon", "Mozart")]


def sampled(text):
    """An answer as the model sampled it; its text is not what its ids say, to tell which one is used."""
    return {"role": "assistant", "content": "(text)", "tokens": [*map(ord, text), Letters.eos_id]}


def conversation():
    return Conversation(
        [
            {"role": "user", "content": "Act as Mozart. Who are you?"},
            sampled(" I am"),
            {"role": "user", "content": "Act as Mozart. And where?"},
            sampled(" Wien"),
        ],
        [True, True],
    )


def test_the_instruction_is_shown_tersely_half_the_time():
    chosen = choose_instructions([{}] * 4000, INSTRUCTIONS, terse_fraction=0.5, seed=0)
    # Of 4000 draws the share has a standard deviation of 0.008; five of them.
    assert abs(np.mean([one["terse"] for one in chosen]) - 0.5) < 0.04
    for one in chosen:
        record = next(record for record in INSTRUCTIONS if record["instruction"] == one["instruction"])
        assert one["shown"] == (record["terse"] if one["terse"] else record["instruction"])


def test_all_instructions_are_drawn_from_and_the_seed_decides():
    chosen = choose_instructions([{}] * 50, INSTRUCTIONS, terse_fraction=0.5, seed=1)
    assert {one["instruction"] for one in chosen} == {one["instruction"] for one in INSTRUCTIONS}
    assert chosen == choose_instructions([{}] * 50, INSTRUCTIONS, terse_fraction=0.5, seed=1)
    assert chosen != choose_instructions([{}] * 50, INSTRUCTIONS, terse_fraction=0.5, seed=2)


def test_a_dialogue_that_brings_an_instruction_keeps_it():
    own = {"turns": ["hello"], "instruction": "Answer in French.", "terse": "French."}
    (chosen,) = choose_instructions([own], [], terse_fraction=1.0, seed=0)
    assert chosen == {"instruction": "Answer in French.", "terse": True, "shown": "French."}
    (chosen,) = choose_instructions([own], INSTRUCTIONS, terse_fraction=0.0, seed=0)
    assert chosen["shown"] == "Answer in French."


def test_the_user_s_side_of_a_dialogue():
    assert user_turns(conversation().messages) == ["Act as Mozart. Who are you?", "Act as Mozart. And where?"]


def test_the_instruction_stands_in_the_first_turn_alone():
    row = ghost_dialogue(["Who are you?", "And where?"], conversation(), "Figure: Mozart.")
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    assert row["messages"][0]["content"] == "Figure: Mozart."
    assert [message["content"] for message in row["messages"][1::2]] == ["Who are you?", "And where?"]


def test_the_loss_is_on_the_last_answer_as_it_was_sampled():
    row = ghost_dialogue(["Who are you?", "And where?"], conversation(), "Figure: Mozart.")
    encoded = encode_row(Letters(), row)
    assert Letters().decode(encoded.tokens[encoded.loss_mask == 1]) == " Wien"
    last = [*map(ord, " Wien"), Letters.eos_id]
    assert encoded.tokens[encoded.loss_mask == 1].tolist() == last
    prompt = encode_prompt(Letters(), row["messages"][:-1])
    assert encoded.tokens.tolist() == [*prompt, *last]
    assert " I am" in Letters().decode(prompt) and "(text)" not in Letters().decode(prompt)


def dialogues(*, seed):
    del seed
    record = {"turns": ["Who are you?", "And where?"], "instruction": "Act as Mozart.", "terse": "Figure: Mozart."}
    return [{**record, "number": number} for number in range(4)]


SAMPLING = {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 8}


def run_stage(tmp_path, monkeypatch, finished):
    """The stage with answers that are given; what the model was asked."""
    asked = []

    def converse(policy, user_turns, sampling, key, **_):
        asked.extend(user_turns)
        return [Conversation(conversation().messages[: 2 * len(ends)], ends) for ends in finished]

    monkeypatch.setattr(conversations, "converse", converse)
    monkeypatch.setattr(sampling, "load_model", lambda folder, mesh, head: types.SimpleNamespace(params=None))
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda path: Letters())
    source = {"made": {"function": f"{__name__}.dialogues", "format": "raw"}}
    config = ConfigDict({"dialogues": source, "instructions": {}, "terse_fraction": 1.0, **SAMPLING})
    runtime = smallest_runtime(tmp_path)
    results = ghost_attention.run(config, {role: tmp_path / role for role in ("tokenizer", "policy")}, runtime)
    return results, read_jsonl(runtime.folder / "dialogues.jsonl"), asked


def test_while_the_model_answers_the_instruction_is_before_every_turn(tmp_path, monkeypatch):
    _, rows, asked = run_stage(tmp_path, monkeypatch, [[True, True]] * 4)
    assert asked == [["Act as Mozart. Who are you?", "Act as Mozart. And where?"]] * 4
    assert [message["content"] for message in rows[0]["messages"][:2]] == ["Figure: Mozart.", "Who are you?"]


def test_dialogues_whose_last_answer_did_not_end_or_is_missing_are_left_out(tmp_path, monkeypatch):
    results, rows, _ = run_stage(tmp_path, monkeypatch, [[True, True], [True, False], [True], [False, True]])
    assert (results["dialogues"], results["left_out_unfinished_or_full"], results["turns"]) == (len(rows), 2, 2.0)


def test_where_none_is_left_the_results_are_json_all_the_same(tmp_path, monkeypatch):
    results, rows, _ = run_stage(tmp_path, monkeypatch, [[True, False]] * 4)
    assert rows == [] and results["dialogues"] == 0
    json.dumps(results, allow_nan=False)
