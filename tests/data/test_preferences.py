"""Preference batches: every pair occurs once, both answers are at their reported places; the paper's mixtures."""

import json

import numpy as np
import pytest

from llama2_jax.data.epochs import steps_in
from llama2_jax.data.preferences import (
    Comparison,
    encode_comparisons,
    helpfulness_mix,
    preference_batches,
    safety_mix,
)
from llama2_jax.data.records import check_record
from llama2_jax.text.dialogue import encode_dialogue, encode_prompt
from llama2_jax.text.tokenizer import Tokenizer
from tests.trained_tokenizer import trained_tokenizer

MARGINS = {"significantly_better": 1.0, "better": 2 / 3, "slightly_better": 1 / 3, "negligibly_better": 0.0}


def comparisons(count, high=30, seed=0):
    """Comparisons whose last tokens identify them: 1000 + n (chosen) and 5000 + n (rejected) for number n."""
    draw = np.random.default_rng(seed)
    labels = [None, (True, False), (True, True), (False, False)]
    made = []
    for number in range(count):
        pair = [
            np.concatenate([draw.integers(3, 900, draw.integers(1, high)), [end]]).astype(np.int32)
            for end in (1000 + number, 5000 + number)
        ]
        made.append(Comparison(*pair, "better", float(number % 5), labels[number % 4], (1, 1)))
    return made


GIVEN = comparisons(53)


def segment(batch, row, column):
    """The tokens of the segment that ends at a place, after checking that one does."""
    ids, tokens = batch["segment_ids"][row], batch["tokens"][row]
    number = ids[column]
    assert number > 0
    inside = np.flatnonzero(ids == number)
    assert inside[-1] == column
    assert batch["positions"][row][inside].tolist() == list(range(len(inside)))
    return tokens[inside].tolist()


def check_pairs(batch, ids):
    """Asserts that every real pair of a (micro)batch is the comparison with its id."""
    real = np.flatnonzero(batch["pair_mask"])
    assert len(real) == len(ids)
    for pair, name in zip(real, ids, strict=True):
        given = GIVEN[int(name)]
        for side in ("chosen", "rejected"):
            found = segment(batch, batch[f"{side}_row"][pair], batch[f"{side}_column"][pair])
            assert found == getattr(given, side).tolist()
        safe = given.safe or (0, 0)
        assert batch["margin"][pair] == given.margin
        assert (batch["chosen_safe"][pair], batch["rejected_safe"][pair]) == safe
        assert batch["safety_known"][pair] == (given.safe is not None)


def test_every_pair_occurs_once_an_epoch_at_its_reported_place():
    batches = preference_batches(GIVEN, 8, 64, seed=0, epochs=2)
    made = list(batches)
    assert batches.steps_per_epoch == (7, 7) and len(made) == steps_in(batches) == 14
    orders = []
    for epoch in (made[:7], made[7:]):
        for batch in epoch:
            check_pairs(batch, batch["ids"])
        orders.append([name for batch in epoch for name in batch["ids"]])
        assert sorted(map(int, orders[-1])) == list(range(53))
    assert orders[0] != orders[1]


def test_nine_in_ten_batches_have_one_number_of_rows_and_the_fullest_another():
    # Each batch of 4 pairs needs one row of 64, except the one with a pair of long answers.
    given = [*comparisons(79, 6), Comparison(np.ones(64, int), np.ones(64, int), "", 0.0, None, (1, 1))]
    made = list(preference_batches(given, 4, 64, seed=0, row_multiple=1))
    needed = [
        max(len(set(np.unique(batch["chosen_row"])) | set(np.unique(batch["rejected_row"]))), 1) for batch in made
    ]
    rows = [len(batch["tokens"]) for batch in made]
    assert len(made) == 20 and max(needed) == max(rows) and rows.count(min(rows)) >= 18 and len(set(rows)) == 2
    assert all(found >= minimum for found, minimum in zip(rows, needed, strict=True))
    for batch in made:
        for side in ("chosen", "rejected"):
            ends = batch["segment_ids"][batch[f"{side}_row"], batch[f"{side}_column"]]
            assert (ends[batch["pair_mask"] > 0] > 0).all()


def test_all_batches_have_one_shape_and_the_last_is_filled_up_with_padding_pairs():
    made = list(preference_batches(GIVEN, 8, 64, seed=0))
    assert len({tuple((name, array.shape) for name, array in batch.items() if name != "ids") for batch in made}) == 1
    assert len(made[0]["tokens"]) % 8 == 0
    padding = made[-1]["pair_mask"] == 0
    assert padding.sum() == 56 - 53
    for name in ("chosen_row", "rejected_column", "margin", "safety_known", "chosen_safe"):
        assert not made[-1][name][padding].any()
    dtypes = {name: array.dtype.name for name, array in made[0].items() if name != "ids"}
    labels = ("margin", "chosen_safe", "rejected_safe", "safety_known", "pair_mask")
    places = ("chosen_row", "chosen_column", "rejected_row", "rejected_column")
    assert dtypes == dict.fromkeys(("tokens", "segment_ids", "positions", *places), "int32") | dict.fromkeys(
        labels, "float32"
    )


def test_microbatches_are_packed_separately():
    flat = list(preference_batches(GIVEN, 8, 64, seed=0))
    for batch, flat_batch in zip(preference_batches(GIVEN, 8, 64, seed=0, accumulation=2), flat, strict=True):
        assert batch["ids"] == flat_batch["ids"]
        ids = list(batch["ids"])
        for index in range(2):
            microbatch = {name: array[index] for name, array in batch.items() if name != "ids"}
            count = int(microbatch["pair_mask"].sum())
            check_pairs(microbatch, ids[:count])
            ids = ids[count:]
        assert not ids


@pytest.mark.parametrize("taken", [0, 1, 6, 7, 9])
def test_a_restored_iterator_continues_identically(taken):
    whole = iter(preference_batches(GIVEN, 8, 64, seed=0, epochs=2))
    for _ in range(taken):
        next(whole)
    restored = iter(preference_batches(GIVEN, 8, 64, seed=0, epochs=2))
    restored.set_state(json.loads(json.dumps(whole.get_state())))
    left, again = list(whole), list(restored)
    assert len(left) == len(again) == 14 - taken
    for batch, same in zip(left, again, strict=True):
        assert all(np.array_equal(batch[name], same[name]) for name in batch)


def test_the_seed_determines_the_order():
    def order(seed):
        return [batch["ids"] for batch in preference_batches(GIVEN, 8, 64, seed)]

    assert order(1) == order(1) != order(2)


def test_labels_of_one_s_own_take_the_place_of_those_of_reward_models():
    labels = {"number": np.arange(53, dtype=np.int32), "half": np.arange(53, dtype=np.float32) / 2}
    batches = list(preference_batches(GIVEN, 8, 64, 0, labels=labels))
    for batch in batches:
        real = batch["pair_mask"] > 0
        assert batch["number"][real].tolist() == [int(name) for name in batch["ids"]]
        assert (batch["half"] == batch["number"] / np.float32(2)).all() and not batch["number"][~real].any()
        assert (batch["number"].dtype, batch["half"].dtype) == (np.int32, np.float32)
        assert "margin" not in batch and "safety_known" not in batch
    assert not all((batch["pair_mask"] > 0).all() for batch in batches), "53 are no multiple of 8"


@pytest.mark.parametrize(
    ("given", "arguments", "message"),
    [
        ([], {}, "no comparisons"),
        ([*GIVEN, Comparison(np.ones(3), np.ones(65), "", 0.0, None, (1, 1))], {}, "comparison 53 has 65"),
        (GIVEN, {"accumulation": 3}, "pairs_per_batch=8 cannot be divided"),
    ],
)
def test_invalid_arguments_raise(given, arguments, message):
    with pytest.raises(ValueError, match=message):
        preference_batches(given, 8, 64, 0, **arguments)


def test_the_helpfulness_models_data_is_half_helpfulness():
    helpfulness, others = list(range(100)), list(range(1000, 2000))
    mixed = helpfulness_mix(helpfulness, others, seed=3)
    assert mixed[:100] == helpfulness
    drawn = mixed[100:]
    assert len(drawn) == len(set(drawn)) == 100 and set(drawn) <= set(others)
    assert mixed == helpfulness_mix(helpfulness, others, seed=3) != helpfulness_mix(helpfulness, others, seed=4)
    # Uniform: the mean of 100 of 1000 numbers has a standard deviation of 27.
    assert np.mean(drawn) == pytest.approx(1500, abs=110)


def test_the_safety_models_data_is_a_tenth_helpfulness():
    mixed = safety_mix(list(range(900)), list(range(1000, 2000)))
    assert mixed[:900] == list(range(900)) and len(mixed) == 1000


def test_too_few_others_are_all_taken(caplog):
    with caplog.at_level("WARNING"):
        assert sorted(helpfulness_mix([1, 2, 3], [7, 8])) == [1, 2, 3, 7, 8]
    assert "took all 2" in caplog.text
    assert helpfulness_mix([1, 2], [], 0.0) == [1, 2]
    with pytest.raises(ValueError, match="below 1"):
        safety_mix([1], [2], 1.0)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    texts = ["the river and the stone", "a quiet garden", "user answer 1 2 3", "[INST] good bad [/INST]"] * 20
    return trained_tokenizer(texts, 300, tmp_path_factory.mktemp("tokenizer") / "tokenizer.model", 1.0)


def preference(*turns, chosen="good", rejected="bad answer", **fields):
    roles = ["user", "assistant"] * len(turns)
    messages = [{"role": role, "content": content} for role, content in zip(roles, turns, strict=False)]
    return {"messages": messages, "chosen": chosen, "rejected": rejected, "domain": "safety", **fields}


def encode_all(tokenizer, *records, length=400, too_long="raise"):
    return encode_comparisons(tokenizer, records, margins=MARGINS, length=length, too_long=too_long, source="web")


def encode(tokenizer, *records, **options):
    return encode_all(tokenizer, *records, **options).comparisons


def test_answers_are_encoded_after_their_prompt(tokenizer):
    record = preference("the river", "a stone", "and", rating="better", safety_label="chosen_safe")
    one = encode(tokenizer, record)[0]
    for side, found in (("chosen", one.chosen), ("rejected", one.rejected)):
        answered = [*record["messages"], {"role": "assistant", "content": record[side]}]
        encoded = encode_dialogue(tokenizer, answered, "last")
        assert found.tolist() == encoded.tokens.tolist()
        assert one.answer_sizes[side == "rejected"] == encoded.loss_mask.sum(), "of this one answer"
    assert (one.rating, one.margin, one.safe) == ("better", 2 / 3, (True, False))


@pytest.mark.parametrize(
    ("label", "safe"), [("both_safe", (True, True)), ("both_unsafe", (False, False)), (None, None)]
)
def test_labels_become_two_answers_safety(tokenizer, label, safe):
    assert encode(tokenizer, preference("the river", safety_label=label))[0].safe == safe


def test_a_comparison_without_a_rating_has_no_margin(tokenizer):
    one = encode(tokenizer, preference("the river"))[0]
    assert (one.rating, one.margin) == ("", 0.0)
    with pytest.raises(ValueError, match="comparison 0: rating 'superb' has no margin"):
        encode(tokenizer, preference("the river", rating="superb"))


def test_sampled_answers_keep_their_ids(tokenizer):
    record = preference("the river", chosen_tokens=[290, 291, 2], rejected_tokens=[292])
    one = encode(tokenizer, record)[0]
    prompt = encode_prompt(tokenizer, record["messages"])
    assert one.chosen.tolist() == [*prompt, 290, 291, 2]
    assert one.rejected.tolist() == [*prompt, 292]
    assert one.answer_sizes == (3, 1)


def test_too_long_comparisons_are_refused_dropped_or_truncated(tokenizer, caplog):
    short, long = preference("the river"), preference("the river", "a quiet garden", "and the stone")
    length = max(len(ids) for ids in (encode(tokenizer, long)[0].chosen, encode(tokenizer, long)[0].rejected)) - 1
    with pytest.raises(ValueError, match=rf"source 'web', comparison 1: {length + 1} tokens do not fit the length"):
        encode(tokenizer, short, long, length=length)
    with caplog.at_level("WARNING"):
        encoded = encode_all(tokenizer, short, long, length=length, too_long="drop")
    assert (len(encoded.comparisons), encoded.kept, encoded.too_long) == (1, [0], 1)
    assert f"web: 1 of 2 comparisons are longer than {length}: drop" in caplog.text
    with pytest.raises(ValueError, match="too_long='cut'"):
        encode(tokenizer, short, too_long="cut")


def test_truncation_keeps_the_same_prompt_for_both_answers(tokenizer):
    record = preference("the river", "a quiet garden", "and the stone", rejected="bad " * 10)
    whole = encode(tokenizer, record)[0]
    last_pair = encode(tokenizer, preference("and the stone", rejected="bad " * 10))[0]
    for length in range(len(last_pair.rejected), len(whole.rejected)):
        cut = encode(tokenizer, record, length=length, too_long="truncate_left")[0]
        assert cut.chosen.tolist() == last_pair.chosen.tolist()
        assert cut.rejected.tolist() == last_pair.rejected.tolist()
    for length in range(5, len(last_pair.rejected)):
        cut = encode(tokenizer, record, length=length, too_long="truncate_left")[0]
        assert max(len(cut.chosen), len(cut.rejected)) == length
        assert cut.chosen[0] == cut.rejected[0] == tokenizer.bos_id
        assert cut.chosen[-1] == cut.rejected[-1] == tokenizer.eos_id
        # Behind the BOS, which was put there.
        assert cut.answer_sizes[1] == min(last_pair.answer_sizes[1], length - 1)


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [("Hello.", "Hello. \n"), ("good", "\t good"), ("a quiet\u2581garden", "a quiet garden")],
    ids=["white space after it", "white space before it", "another sign for a space"],
)
def test_answers_that_are_the_same_tokens_are_left_out_and_counted(tokenizer, caplog, chosen, rejected):
    same, other = preference("hi", chosen=chosen, rejected=rejected), preference("hi")
    check_record(same, "preferences")
    with caplog.at_level("WARNING"):
        encoded = encode_all(tokenizer, other, same, other)
    assert (len(encoded.comparisons), encoded.kept, encoded.same_tokens) == (2, [0, 2], 1)
    assert "web: left out 1 of 3 comparisons of two equal answers" in caplog.text
    assert all(one.chosen.tolist() != one.rejected.tolist() for one in encoded.comparisons)


def test_answers_with_the_same_sampled_ids_are_left_out_whatever_their_texts_say(tokenizer):
    record = preference("the river", chosen_tokens=[290, 2], rejected_tokens=[290, 2])
    assert encode_all(tokenizer, record).same_tokens == 1
    finished = preference("the river", chosen="a", rejected="a", chosen_tokens=[290, 2], rejected_tokens=[290])
    assert encode_all(tokenizer, finished).same_tokens == 0, "one of them ended"


def test_answers_that_differ_only_in_what_is_truncated_are_left_out(tokenizer):
    ending = "the stone " * 10
    record = preference("and", chosen=f"good {ending}", rejected=f"bad {ending}")
    assert encode_all(tokenizer, record).same_tokens == 0
    encoded = encode_all(tokenizer, record, length=8, too_long="truncate_left")
    assert (encoded.comparisons, encoded.too_long, encoded.same_tokens) == ([], 1, 1)


def test_a_sampled_bos_is_no_beginning_of_a_pair(tokenizer):
    """Cut there, an answer would lose its prompt and its own beginning."""
    sampled = [290, tokenizer.bos_id, *[291] * 6, tokenizer.eos_id]
    record = preference("the river and the stone", chosen_tokens=sampled, rejected_tokens=[292, tokenizer.eos_id])
    prompt = encode_prompt(tokenizer, record["messages"])
    length = len(prompt) + len(sampled) - 3
    (cut,) = encode(tokenizer, record, length=length, too_long="truncate_left")
    assert cut.chosen.tolist() == [tokenizer.bos_id, *prompt[4:], *sampled]
    assert cut.rejected.tolist() == [tokenizer.bos_id, *prompt[4:], 292, tokenizer.eos_id]
