"""An instruction given once, kept to the end."""

import itertools
import json
import re
import types
from collections import Counter

import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.parts import ghost_instructions
from llama2_jax.pipeline import conversations, encoding, sampling
from llama2_jax.pipeline.conversations import Conversation
from llama2_jax.pipeline.encoding import encode_row
from llama2_jax.pipeline.stage_files import read_jsonl
from llama2_jax.stages import ghost_attention
from llama2_jax.stages.ghost_attention import choose_instructions, ghost_dialogue, trained_turns
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


def asking(count):
    return [{"turns": [f"question {number}"]} for number in range(count)]


def test_the_instruction_is_shown_tersely_half_the_time():
    chosen = choose_instructions(asking(4000), INSTRUCTIONS, terse_fraction=0.5, seed=0)
    # Of 4000 draws the share has a standard deviation of 0.008; five of them.
    assert abs(np.mean([one["terse"] for one in chosen]) - 0.5) < 0.04
    for one in chosen:
        record = next(record for record in INSTRUCTIONS if record["instruction"] == one["instruction"])
        assert one["shown"] == (record["terse"] if one["terse"] else record["instruction"])


def test_all_instructions_are_drawn_from_and_the_seed_decides():
    chosen = choose_instructions(asking(50), INSTRUCTIONS, terse_fraction=0.5, seed=1)
    assert {one["instruction"] for one in chosen} == {one["instruction"] for one in INSTRUCTIONS}
    assert chosen == choose_instructions(asking(50), INSTRUCTIONS, terse_fraction=0.5, seed=1)
    assert chosen != choose_instructions(asking(50), INSTRUCTIONS, terse_fraction=0.5, seed=2)


def test_a_draw_is_the_dialogue_s_own_wherever_it_stands():
    forwards = choose_instructions(asking(50), ghost_instructions.instructions(seed=0), terse_fraction=0.5, seed=1)
    backwards = choose_instructions(
        asking(50)[::-1], ghost_instructions.instructions(seed=0), terse_fraction=0.5, seed=1
    )
    assert forwards == backwards[::-1]
    source = [{**dialogue, "source": "renamed"} for dialogue in asking(50)]
    assert forwards == choose_instructions(source, ghost_instructions.instructions(seed=0), terse_fraction=0.5, seed=1)


def test_constraints_of_different_kinds_are_combined_and_all_combinations_are_as_likely():
    """Section 3.3: "we construct the final instruction by randomly combining the above constraints"."""
    chosen = choose_instructions(asking(7000), ghost_instructions.instructions(seed=0), terse_fraction=1.0, seed=0)
    counts = Counter(tuple(re.findall(r"(\w+): ", one["shown"])) for one in chosen)
    kinds = ("Hobby", "Language", "Figure")
    assert counts.keys() == {c for n in (1, 2, 3) for c in itertools.combinations(kinds, n)}
    # Each of the seven is drawn 1000 times on average, with a standard deviation of 29; five of them.
    assert all(abs(count - 1000) < 145 for count in counts.values())
    assert {one["shown"] for one in chosen if one["shown"].count(":") == 1} == {
        record["terse"] for record in ghost_instructions.instructions(seed=0)
    }


def test_both_forms_of_a_combination_say_the_same():
    constraints = ghost_instructions.instructions(seed=0)
    full = {record["terse"]: record["instruction"] for record in constraints}
    for one in choose_instructions(asking(200), constraints, terse_fraction=1.0, seed=0):
        parts = [f"{part}." for part in one["shown"].removesuffix(".").split(". ")]
        assert one["instruction"] == " ".join(full[part] for part in parts)


def test_a_dialogue_that_brings_an_instruction_keeps_it():
    own = {"turns": ["hello"], "instruction": "Answer in French.", "terse": "French."}
    (chosen,) = choose_instructions([own], [], terse_fraction=1.0, seed=0)
    assert chosen == {"instruction": "Answer in French.", "terse": True, "shown": "French."}
    (chosen,) = choose_instructions([own], INSTRUCTIONS, terse_fraction=0.0, seed=0)
    assert chosen["shown"] == "Answer in French."


@pytest.mark.parametrize("record", [{"instruction": "Act as Mozart."}, {"instruction": "", "terse": "Figure: Mozart."}])
def test_an_instruction_without_one_of_its_forms_is_refused(record):
    field = "instruction" if "terse" in record else "terse"
    with pytest.raises(ValueError, match=f"has the field {field} .*wanted a text, as in"):
        choose_instructions(asking(1), [record], terse_fraction=0.5, seed=0)
    with pytest.raises(ValueError, match=f"has the field {field} .*wanted a text, as in"):
        choose_instructions([{"turns": ["hello"], **record}], [], terse_fraction=0.5, seed=0)


def test_a_dialogue_without_an_instruction_and_nothing_to_draw_from():
    with pytest.raises(ValueError, match=r"the dialogue 'question 0' brings no instruction of its own"):
        choose_instructions(asking(1), [], terse_fraction=0.5, seed=0)


def test_the_instruction_stands_in_the_first_turn_alone():
    row = ghost_dialogue(["Who are you?", "And where?"], conversation(), "Figure: Mozart.", [2])
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    assert row["messages"][0]["content"] == "Figure: Mozart."
    assert [message["content"] for message in row["messages"][1::2]] == ["Who are you?", "And where?"]


def test_the_loss_is_on_the_last_answer_as_it_was_sampled():
    row = ghost_dialogue(["Who are you?", "And where?"], conversation(), "Figure: Mozart.", [2])
    encoded = encode_row(Letters(), row)
    assert Letters().decode(encoded.tokens[encoded.loss_mask == 1]) == " Wien"
    last = [*map(ord, " Wien"), Letters.eos_id]
    assert encoded.tokens[encoded.loss_mask == 1].tolist() == last
    prompt = encode_prompt(Letters(), row["messages"][:-1])
    assert encoded.tokens.tolist() == [*prompt, *last]
    assert " I am" in Letters().decode(prompt) and "(text)" not in Letters().decode(prompt)


def test_an_earlier_answer_is_trained_on_as_the_last_one_of_the_dialogue_up_to_it():
    row = ghost_dialogue(["Who are you?", "And where?"], conversation(), "Figure: Mozart.", [1, 2])
    whole = encode_row(Letters(), row)
    earlier = encode_row(Letters(), {"messages": row["messages"][:3], "loss": "last"})
    later = encode_row(Letters(), {"messages": row["messages"], "loss": "last"})
    np.testing.assert_array_equal(whole.tokens[: len(earlier)], earlier.tokens)
    np.testing.assert_array_equal(whole.tokens, later.tokens)
    alone = np.pad(earlier.loss_mask, (0, len(later) - len(earlier)))
    assert alone.sum() and later.loss_mask.sum()
    np.testing.assert_array_equal(whole.loss_mask, alone + later.loss_mask)


def test_the_last_answer_is_trained_on_and_earlier_ones_that_ended():
    user, finished = [f"question {turn}" for turn in range(6)], [True, False, True, True, False, True]
    assert trained_turns({"turns": user}, finished, 1, seed=0) == [6]
    others = [{"turns": [*user[:5], f"question {number}"]} for number in range(60)]
    drawn = [trained_turns(record, finished, 3, seed=0) for record in others]
    assert all(len(turns) == 3 and turns[-1] == 6 and turns == sorted(set(turns)) for turns in drawn)
    assert {turn for turns in drawn for turn in turns} == {1, 3, 4, 6}
    assert trained_turns({"turns": user}, finished, 9, seed=0) == [1, 3, 4, 6]
    assert trained_turns({"turns": user[:1]}, [True], 3, seed=0) == [1]


def test_a_dialogue_that_says_which_turns_its_instruction_applies_to_is_trained_on_the_answers_to_those():
    record = {"turns": [f"question {turn}" for turn in range(6)], "applies_to": [2, 3, 6]}
    assert trained_turns(record, [True] * 6, 4, seed=0) == [2, 3, 6]
    assert trained_turns(record, [True, False, True, True, True, True], 4, seed=0) == [3, 6]
    assert trained_turns(record | {"applies_to": []}, [True] * 6, 9, seed=0) == [6]
    assert trained_turns(record | {"applies_to": None}, [True] * 6, 9, seed=0) == [1, 2, 3, 4, 5, 6]


def dialogues(*, seed):
    del seed
    record = {"turns": ["Who are you?", "And where?"], "instruction": "Act as Mozart.", "terse": "Figure: Mozart."}
    return [{**record, "number": number} for number in range(4)]


def public_dialogues(*, seed):
    """As files have them: with answers, and without an instruction."""
    del seed
    texts = ("Who are you?", "I am I.", "And where?", "Here.")
    roles = ("user", "assistant", "user", "assistant")
    return [{"messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]}] * 4


def constraints(*, seed):
    del seed
    return [
        {"kind": "figure", "instruction": "Act as Mozart.", "terse": "Figure: Mozart."},
        {"kind": "hobby", "instruction": "You enjoy chess.", "terse": "Hobby: chess."},
    ]


SAMPLING = {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 8}


def run_stage(tmp_path, monkeypatch, finished, read=dialogues, instructions=None, trained_answers=1):
    """The stage with answers that are given; what the model was asked."""
    asked = []

    def converse(policy, user_turns, sampling, key, **_):
        asked.extend(user_turns)
        return [Conversation(conversation().messages[: 2 * len(ends)], ends) for ends in finished]

    monkeypatch.setattr(conversations, "converse", converse)
    monkeypatch.setattr(sampling, "load_model", lambda folder, mesh, head: types.SimpleNamespace(params=None))
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda path: Letters())
    source = {"made": {"function": f"{__name__}.{read.__name__}", "format": "raw"}}
    chosen = {"instructions": instructions or {}, "terse_fraction": 1.0, "trained_answers": trained_answers}
    config = ConfigDict({"dialogues": source, **chosen, **SAMPLING})
    runtime = smallest_runtime(tmp_path)
    results = ghost_attention.run(config, {role: tmp_path / role for role in ("tokenizer", "policy")}, runtime)
    return results, read_jsonl(runtime.folder / "dialogues.jsonl"), asked


def test_while_the_model_answers_the_instruction_is_before_every_turn(tmp_path, monkeypatch):
    _, rows, asked = run_stage(tmp_path, monkeypatch, [[True, True]] * 4)
    assert asked == [["Act as Mozart. Who are you?", "Act as Mozart. And where?"]] * 4
    assert [message["content"] for message in rows[0]["messages"][:2]] == ["Figure: Mozart.", "Who are you?"]


def test_the_user_s_turns_of_public_dialogues_are_asked_under_drawn_constraints(tmp_path, monkeypatch):
    drawn = {"drawn": {"function": f"{__name__}.constraints", "format": "raw"}}
    _, rows, asked = run_stage(tmp_path, monkeypatch, [[True, True]] * 4, public_dialogues, drawn)
    instructions = {first.removesuffix(" Who are you?") for first, _ in asked}
    assert instructions <= {"Act as Mozart.", "You enjoy chess.", "Act as Mozart. You enjoy chess.",
                            "You enjoy chess. Act as Mozart."}  # fmt: skip
    assert [second.removesuffix(" And where?") for _, second in asked] == [
        first.removesuffix(" Who are you?") for first, _ in asked
    ]
    assert [message["content"] for message in rows[0]["messages"][1::2]] == ["Who are you?", "And where?"]


def test_dialogues_whose_last_answer_did_not_end_or_is_missing_are_left_out(tmp_path, monkeypatch):
    results, rows, _ = run_stage(tmp_path, monkeypatch, [[True, True], [True, False], [True], [False, True]])
    assert (results["dialogues"], results["left_out_unfinished_or_full"], results["turns"]) == (len(rows), 2, 2.0)


def test_each_dialogue_is_a_row_with_the_loss_on_answers_that_ended(tmp_path, monkeypatch):
    results, rows, _ = run_stage(tmp_path, monkeypatch, [[True, True], [True, False], [False, True], [True, True]],
                                 trained_answers=2)  # fmt: skip
    assert (results["dialogues"], results["trained_answers"], results["left_out_unfinished_or_full"]) == (3, 5, 1)
    assert [[message["weight"] for message in row["messages"][2::2]] for row in rows] == [[1, 1], [0, 1], [1, 1]]


def test_where_none_is_left_it_is_said_and_the_results_are_json_all_the_same(tmp_path, monkeypatch, caplog):
    results, rows, _ = run_stage(tmp_path, monkeypatch, [[True, False]] * 4)
    assert rows == [] and results["dialogues"] == 0
    assert "keeps none of 4 dialogues" in caplog.text
    json.dumps(results, allow_nan=False)
