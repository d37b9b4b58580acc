"""A flag that sets a field which an experiment does not have is answered with what it has."""

import pytest
from ml_collections import ConfigDict

from llama2_jax.config_paths import named_fields, what_is_wrong

CONFIG = ConfigDict({
    "seed": 0,
    "sft": {"sources": {"public": {"path": "a.jsonl", "limit": 3}}, "temperatures": (0.5, 1.0), "nothing": None},
})  # fmt: skip


@pytest.mark.parametrize("field", ["seed", "sft", "sft.sources.public.limit", "sft.temperatures[1]", "sft.nothing"])
def test_a_field_that_is_there(field):
    assert what_is_wrong(CONFIG, field) == ""


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("sft.sources.mine.limit", "config.sft.sources has no 'mine'; it has: public"),
        ("sft.sources.mine", "config.sft.sources has no 'mine'; it has: public"),
        ("sft.sources.publc.limit", "config.sft.sources has no 'publc' (did you mean 'public'?); it has: public"),
        ("sft.sources.pub-lic.limit", "config.sft.sources has no 'pub-lic' (did you mean 'public'?); it has: public"),
        ("sft.sources.public.limits", "has no 'limits' (did you mean 'limit'?); it has: limit, path"),
        ("stf.sources.public.limit", "config has no 'stf' (did you mean 'sft'?); it has: seed, sft"),
        ("seed.x", "config.seed is 0 and has no fields"),
        ("sft.nothing.x", "config.sft.nothing is None and has no fields"),
        ("sft.temperatures.x", "config.sft.temperatures has 2 values, to be set together"),
        ("sft.temperatures[2]", "config.sft.temperatures has 2 values, to be set together"),
        ("sft[0]", "config.sft has no '0'; it has: nothing, sources, temperatures"),
        ("", "'' is not the name of a field"),
        ("sft..seed", "config.sft has no 'seed'; it has"),
        ("sft.", "'sft.' is not the name of a field"),
    ],
)
def test_a_field_that_is_not_there(field, message):
    assert message in what_is_wrong(CONFIG, field)


def test_fields_are_found_among_other_flags():
    flags = [
        "main",
        "--config=a.py:tiny",
        "--config.sft.x=config.y=1",
        "-config.seed",
        "5",
        "--noconfig.on",
        "--until=a",
    ]
    assert named_fields(flags) == ["sft.x", "seed", "on"]
