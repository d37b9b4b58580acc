"""What is known of the number of records before they are read, and after."""

import json
import math

from llama2_jax.data.counts import count_records, most_records


def records(seed, count):
    return [{"text": f"{seed} {index}"} for index in range(count)]


def test_the_most_is_the_sum_of_the_limits():
    limited = {"path": "a.jsonl", "format": "text", "limit": 20}
    assert most_records({"one": limited, "other": {**limited, "limit": 3}}) == 23
    assert most_records({"one": limited, "all": {"path": "b.jsonl", "format": "text"}}) == math.inf
    assert most_records({}) == 0


def test_records_are_counted_where_they_are(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": str(index)}) + "\n" for index in range(7)))
    file = {"path": "a.jsonl", "format": "text"}
    function = {"function": f"{__name__}.records", "format": "text", "arguments": {"count": 4}}
    count = count_records(tmp_path, seed=3)
    assert count({"file": file, "function": function}) == 11
    assert count({"file": {**file, "limit": 5}}) == 5
