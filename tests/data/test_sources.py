"""Sources yield checked records, lose none silently, and split into disjoint parts."""

import hashlib
import itertools
import json

import ml_collections
import pytest

from llama2_jax.data.files import BadLine
from llama2_jax.data.sources import Source, as_source, load_function, read, read_all, read_and_report


def dialogues(*, seed, count=3, word="a"):
    return [
        {"messages": [{"role": "user", "content": f"{word} {seed} {n}"}, {"role": "assistant", "content": "b"}]}
        for n in range(count)
    ]


def lines(folder, records, name="x.jsonl"):
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_file_is_read_in_order(tmp_path):
    lines(tmp_path, [{"text": "a", "source": "mine"}, {"text": "b"}])
    records = read({"path": "*.jsonl", "format": "text"}, tmp_path, seed=0, name="web")
    assert records == [{"text": "a", "source": "mine"}, {"text": "b", "source": "web"}]


def test_a_function_gets_its_arguments_and_the_seed():
    source = {"function": f"{__name__}.dialogues", "arguments": {"count": 2, "word": "w"}, "format": "dialogues"}
    records = read(source, "", seed=5)
    assert [record["messages"][0]["content"] for record in records] == ["w 5 0", "w 5 1"]


def test_sources_of_a_config(tmp_path):
    lines(tmp_path, [{"t": "a"}])
    config = ml_collections.ConfigDict(
        {
            "file": {"path": "x.jsonl", "format": "text", "columns": {"text": "t"}, "weight": 2.0, "part": (0.0, 1.0)},
            "function": {"function": f"{__name__}.dialogues", "arguments": {"count": 4}, "format": "dialogues"},
        }
    )
    records = read_all(config, tmp_path, seed=0)
    assert records["file"] == [{"text": "a", "source": "file"}]
    assert len(records["function"]) == 4


def test_the_first_bad_line_stops_the_reading(tmp_path):
    lines(tmp_path, [{"text": "a"}, {"txt": "b"}])
    with pytest.raises(BadLine, match=r"x\.jsonl:2: there is no field text; there are txt.*on_bad_line"):
        read({"path": "x.jsonl", "format": "text"}, tmp_path, seed=0)


def test_bad_lines_can_be_skipped_and_are_reported(tmp_path, caplog):
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n{"text": \n{"text": ""}\n{"text": "b"}\n')
    with caplog.at_level("WARNING"):
        reading = read_and_report({"path": "x.jsonl", "format": "text", "on_bad_line": "skip"}, tmp_path, 0, "web")
    assert [record["text"] for record in reading.records] == ["a", "b"]
    assert [bad.place.rpartition(":")[2] for bad in reading.skipped] == ["2", "3"]
    assert "not JSON" in reading.skipped[0].reason and "not empty" in reading.skipped[1].reason
    for wanted in ("x.jsonl:2: not JSON", "x.jsonl:3: field text", "2 records, 2 bad lines skipped"):
        assert wanted in caplog.text


@pytest.mark.parametrize("row", ["text", None, 7])
def test_a_function_must_give_records(row):
    source = Source(function=f"{__name__}.constant", arguments={"value": [row]}, format="text")
    with pytest.raises(BadLine, match=r"constant:record 0: a \w+, wanted an object"):
        read(source, "", seed=0)


def constant(*, seed, value):
    return value


@pytest.mark.parametrize("format", ["raw", "dialogues", "alpaca", "text"])
def test_a_function_s_records_must_be_text_too(format):
    source = Source(function=f"{__name__}.constant", arguments={"value": [{"any": ["x\ud83d"]}]}, format=format)
    with pytest.raises(BadLine, match=r"constant:record 0: field any\[0\], character 1: U\+D83D"):
        read(source, "", seed=0)


def test_csv_that_is_not_well_formed_costs_its_row(tmp_path):
    (tmp_path / "x.csv").write_text(
        'question,answer\nHow tall?,"about 3 m\nHow wide?,2 m\nHow deep?,1 m\nHow old?,9 years\n'
    )
    source = {"path": "x.csv", "format": "dialogues", "columns": {"user": "question", "assistant": "answer"}}
    with pytest.raises(BadLine, match=r"x\.csv:2: not well-formed CSV"):
        read(source, tmp_path, 0)
    reading = read_and_report({**source, "on_bad_line": "skip"}, tmp_path, 0)
    assert [record["messages"][0]["content"] for record in reading.records] == ["How wide?", "How deep?", "How old?"]
    assert [bad.place for bad in reading.skipped] == [f"{tmp_path}/x.csv:2"]


def test_a_column_that_no_row_has_is_reported_where_a_default_stands_in(tmp_path, caplog):
    lines(tmp_path, [{"q": "q", "a": "a"}, {"q": "q2", "a": "a2"}])
    columns = {"user": "q", "context": "p", "assistant": "a"}
    source = {"path": "x.jsonl", "format": "dialogues", "columns": columns}
    with pytest.raises(
        BadLine, match=r"x\.jsonl:1: there is no field p; there are q, a. If rows may lack it, give context"
    ):
        read(source, tmp_path, 0)
    with caplog.at_level("WARNING"):
        assert len(read({**source, "defaults": {"context": ""}}, tmp_path, 0, "mine")) == 2
    assert "source 'mine': no row has the column p; the defaults are used" in caplog.text


def test_optional_fields_of_prompts_are_filled_in_by_the_reader(tmp_path):
    lines(tmp_path, [{"messages": [{"role": "user", "content": "Tell me a fact."}], "safety": None}])
    (record,) = read({"path": "x.jsonl", "format": "prompts"}, tmp_path, 0, "p", "prompts")
    assert (record["safety"], record["category"], record["source"]) == (False, "", "p")


def test_a_reader_gets_the_kind_that_it_needs(tmp_path):
    lines(tmp_path, [{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}])
    source = {"path": "x.jsonl", "format": "dialogues"}
    with pytest.raises(
        ValueError, match=r"source 's' has records of kind 'dialogues' and 'prompts' .*set its kind=\"prompts\""
    ):
        read(source, tmp_path, 0, "s", "prompts")
    with pytest.raises(
        ValueError, match=r"source 's' has records of kind 'dialogues' and 'preferences' is wanted here$"
    ):
        read(source, tmp_path, 0, "s", "preferences")
    assert len(read({**source, "kind": "prompts"}, tmp_path, 0, "s", "prompts")) == 1
    assert len(read(source, tmp_path, 0, "s", "user_turns")) == 1
    # What is raw is checked as what is needed.
    with pytest.raises(BadLine, match=r"x\.jsonl:1: there is no field instruction"):
        read({**source, "format": "raw"}, tmp_path, 0, "s", "instructions")


def test_the_path_of_the_data_is_literal(tmp_path):
    root = tmp_path / "corpus [2026]"
    root.mkdir()
    lines(root, [{"text": "a"}])
    for path in ("x.jsonl", "*.jsonl", str(root / "x.jsonl")):
        assert len(read({"path": path, "format": "text"}, root, 0)) == 1


def test_conversations_can_be_read_as_prompts():
    source = Source(function=f"{__name__}.dialogues", format="dialogues", kind="prompts", defaults={"safety": True})
    record = read(source, "", seed=0)[0]
    assert [message["role"] for message in record["messages"]] == ["user"] and record["safety"] is True


def test_rows_can_be_chosen_by_their_columns(tmp_path):
    (tmp_path / "x.csv").write_text("prompt,label\na,safe\nb,unsafe\nc,safe\n")
    source = {"path": "x.csv", "format": "prompts", "columns": {"user": "prompt"}, "where": {"label": "safe"}}
    assert [record["messages"][0]["content"] for record in read(source, tmp_path, 0)] == ["a", "c"]
    with pytest.raises(BadLine, match="there is no column lable"):
        read({**source, "where": {"lable": "safe"}}, tmp_path, 0)


def test_a_limit_takes_the_first(tmp_path):
    lines(tmp_path, [{"text": str(n)} for n in range(5)])
    assert [r["text"] for r in read({"path": "x.jsonl", "format": "text", "limit": 2}, tmp_path, 0)] == ["0", "1"]


def test_parts_are_disjoint_complete_and_keep_conversations_together():
    def part(begin, end):
        source = Source(function=f"{__name__}.twice", format="dialogues", part=(begin, end))
        return [record["messages"][0]["content"] for record in read(source, "", seed=0)]

    parts = [part(0.0, 0.5), part(0.5, 0.9), part(0.9, 1.0)]
    everything = part(0.0, 1.0)
    assert sorted(itertools.chain(*parts)) == sorted(everything)
    assert not set(parts[0]) & set(parts[1]) and not set(parts[1]) & set(parts[2]) and not set(parts[0]) & set(parts[2])
    # 500 conversations: the standard deviation of a part's share is below 0.023.
    for names, share in zip(parts, (0.5, 0.4, 0.1), strict=True):
        assert len(names) / len(everything) == pytest.approx(share, abs=0.08)
    # The border must never change: a later version would train on records that an earlier one held out.
    hashes = {name: int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) / 16**16 for name in everything}
    assert parts[0] == [name for name in everything if hashes[name] < 0.5]


def twice(*, seed):
    return dialogues(seed=seed, count=500) * 2


def test_an_empty_file_is_refused(tmp_path):
    for name, source in (
        ("x.jsonl", {"format": "text"}),
        ("x.csv", {"format": "prompts"}),
        ("x.txt", {"format": "text"}),
    ):
        (tmp_path / name).write_text("")
        with pytest.raises(ValueError, match=f"{name}: the file has no records"):
            read({"path": name, **source}, tmp_path, 0)


def test_a_source_without_remaining_records_is_refused(tmp_path):
    lines(tmp_path, [{"text": ""}])
    with pytest.raises(
        ValueError, match=r"source 'web': no records are left \(1 bad lines skipped.*x\.jsonl:1: field text"
    ):
        read({"path": "x.jsonl", "format": "text", "on_bad_line": "skip"}, tmp_path, 0, "web")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": "x", "format": "text", "wieght": 2}, r"has no field 'wieght' \(did you mean 'weight'\?\); it has"),
        ({"path": "x", "format": "parquet"}, "unknown format 'parquet'"),
        ({"path": "x"}, "unknown format ''"),
        ({"format": "text"}, "a path or a function"),
        ({"path": "x", "function": "y.z", "format": "text"}, "a path or a function"),
        ({"path": "x", "format": "hh_rlhf", "kind": "promts"}, "unknown kind 'promts'"),
        ({"path": "x", "format": "text", "part": (0.5, 0.2)}, "begin < end"),
        ({"path": "x", "format": "text", "part": 0.5}, "part=0.5: wanted"),
        ({"path": "x", "format": "text", "limit": 0}, "limit=0"),
        ({"path": "x", "format": "text", "limit": 1.5}, "limit=1.5: wanted a positive whole number"),
        ({"path": "x", "format": "text", "limit": "10"}, "limit='10'"),
        ({"path": "x", "format": "text", "weight": -1.0}, "weight=-1.0: wanted a number, 0 or more"),
        ({"path": "x", "format": "text", "weight": "2"}, "weight='2'"),
        ({"path": "x", "format": "text", "weight": float("nan")}, "weight=nan"),
        ({"path": "x", "format": "text", "arguments": {"n": 1}}, "they are for a function"),
        ({"path": "x", "format": "text", "text_unit": "page"}, 'text_unit=\'page\': choose "file" or "line"'),
        ({"function": "a.b", "format": "text", "text_unit": "line"}, "for text files, and this source has a function"),
        ({"path": "x", "format": "alpaca", "columns": {"user": "q"}}, "columns name user, which the format alpaca"),
        ({"path": "x", "format": "text", "kind": "prompts"}, "of format 'text' cannot be read as kind='prompts'"),
        ({"path": "x", "format": "text", "on_bad_line": "ignore"}, "on_bad_line='ignore'"),
        ({"path": "x", "format": "text", "hub": "hf://datasets/org/set/x"}, "hub='hf://.*': wanted a mapping"),
        ({"path": "x", "format": "text", "columns": "text"}, "columns='text': wanted a mapping"),
        ({"path": "x", "format": "text", "defaults": "text"}, "defaults='text': wanted a mapping"),
        ({"path": "x", "format": "text", "where": ["split"]}, r"where=\['split'\]: wanted a mapping"),
        ({"function": "a.b", "format": "text", "arguments": [1]}, r"arguments=\[1\]: wanted a mapping"),
        ({"path": "x", "format": ["text"]}, r"format=\['text'\]: wanted a string"),
        ({"path": "x", "format": "text", "kind": ["text"]}, r"kind=\['text'\]: wanted a string"),
        ({"path": 5, "format": "text"}, "path=5: wanted a path, a glob or a list of them"),
        ({"path": "x", "format": "text", "optional": "no"}, "optional='no': wanted true or false"),
    ],
)
def test_a_wrong_source_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        as_source(fields)


@pytest.mark.parametrize("path", ["nowhere", "no.such.module", "llama2_jax.data.sources.nothing"])
def test_a_function_that_does_not_exist_is_named(path):
    with pytest.raises(ValueError, match=f"no function '{path}'"):
        load_function(path)


def test_a_unit_of_text_needs_a_text_file(tmp_path):
    lines(tmp_path, [{"text": "a"}])
    with pytest.raises(ValueError, match=r'text_unit="line" is for text files, and none of .x\.jsonl. is one'):
        read({"path": "x.jsonl", "format": "text", "text_unit": "line"}, tmp_path, 0)


def test_arguments_that_a_function_does_not_have_are_named():
    source = {"function": f"{__name__}.dialogues", "arguments": {"cuont": 2}, "format": "dialogues"}
    with pytest.raises(ValueError, match=r"test_sources\.dialogues.*unexpected keyword argument 'cuont'"):
        read(source, "", 0)


@pytest.mark.parametrize("value", [None, 3, "text", {"text": "x"}])
def test_a_function_that_returns_no_list_is_named(value):
    source = {"function": f"{__name__}.constant", "arguments": {"value": value}, "format": "text"}
    with pytest.raises(ValueError, match=r"constant returned a \w+; wanted a list of records"):
        read(source, "", 0)


def without_short(record, *, least=2):
    """Leaves out what is short, and turns the rest into prompts."""
    if len(record["text"]) < least:
        return None
    return {"messages": [{"role": "user", "content": record["text"].upper()}]}


def test_a_source_s_records_are_prepared_and_checked_as_what_they_became(tmp_path, caplog):
    lines(tmp_path, [{"text": "abc"}, {"text": "a"}, {"text": "abcd"}])
    prepare = {"function": f"{__name__}.without_short", "arguments": {"least": 3}}
    source = {"path": "x.jsonl", "format": "text", "kind": "prompts", "prepare": prepare}
    with caplog.at_level("INFO"):
        records = read(source, tmp_path, seed=0, name="mine", kind="prompts")
    assert [record["messages"][0]["content"] for record in records] == ["ABC", "ABCD"]
    assert records[0]["safety"] is False and records[0]["source"] == "mine"
    assert "without_short left out 1 records" in caplog.text
    config = ml_collections.ConfigDict({"mine": source})
    assert read_all(config, tmp_path, 0, "prompts")["mine"] == records


def broken(record):
    return {"messages": [{"role": "assistant", "content": record["text"]}]}


def test_what_a_preparation_returns_is_checked_with_its_place(tmp_path):
    lines(tmp_path, [{"text": "abc"}])
    source = {"path": "x.jsonl", "format": "text", "kind": "prompts", "prepare": {"function": f"{__name__}.broken"}}
    with pytest.raises(BadLine, match=r"x\.jsonl:1: roles are assistant"):
        read(source, tmp_path, seed=0)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        ({"arguments": {}}, r"prepare=.*: wanted its function, a dotted path"),
        ({"function": "tests.data.test_sources.absent"}, "no function 'tests.data.test_sources.absent'"),
        ({"function": f"{__name__}.without_short", "arguments": {"most": 3}}, r"unexpected keyword argument 'most'"),
        ({"function": f"{__name__}.without_short", "arguments": {"least": 9}}, "no records are left .*2 left out by"),
    ],
    ids=str,
)
def test_a_preparation_that_cannot_be_used_is_refused(tmp_path, prepare, message):
    lines(tmp_path, [{"text": "abc"}, {"text": "abcd"}])
    source = {"path": "x.jsonl", "format": "text", "kind": "prompts", "prepare": prepare}
    with pytest.raises(ValueError, match=message):
        read(source, tmp_path, seed=0)
