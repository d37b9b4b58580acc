"""Both data have all that the experiments read, and nothing that is held out is trained on."""

import dataclasses
import itertools

import pytest

from experiments.parts.choice import DATA
from experiments.parts.sources import Sources
from llama2_jax.data.records import check_record
from llama2_jax.data.sources import as_source, load_function, read

ROUNDS = range(1, 6)


def sources_in(data):
    """All sources of the data, by field and name."""
    found = {}
    for field in dataclasses.fields(Sources):
        value = getattr(data, field.name)
        if field.name in ("annotation_prompts", "sampling_prompts"):
            value = {f"{name} {number}": one for number in ROUNDS for name, one in value(number).items()}
        elif field.name in ("preferences", "annotator_preferences"):
            value = value(5)
        if isinstance(value, dict) and field.name not in ("annotator", "judge"):
            found |= {f"{field.name}.{name}": one for name, one in value.items()}
    return found


@pytest.mark.parametrize("name", DATA)
def test_every_source_is_one_that_can_be_read(name):
    sources = sources_in(DATA[name])
    assert len(sources) >= 20
    for place, source in sources.items():
        source = as_source(source)
        assert not source.function or callable(load_function(source.function)), place


@pytest.mark.parametrize("name", DATA)
def test_annotator_and_judge_are_functions(name):
    data = DATA[name]
    assert all(callable(load_function(part["function"])) for part in (data.annotator, data.judge))
    assert set(data.annotator_kinds) <= {"helpfulness", "safety"}
    assert set(data.annotator_inputs.values()) == {f"annotator_{kind}" for kind in data.annotator_kinds}
    assert all(data.annotator_preferences(5) for _ in data.annotator_kinds)


@pytest.mark.parametrize("name", DATA)
def test_every_field_is_documented_and_set(name):
    described = Sources.__doc__
    for field in dataclasses.fields(Sources):
        assert f"\n      {field.name}: " in described
        assert getattr(DATA[name], field.name) is not None


@pytest.mark.parametrize("name", DATA)
def test_limits_reach_every_file_of_comparisons(name):
    data = DATA[name]
    for preferences in (data.preferences, data.annotator_preferences):
        assert {source["limit"] for source in preferences(7).values()} <= {7}


@pytest.mark.parametrize("field", ["demonstrations", "public_demonstrations"])
def test_real_dialogues_to_test_on_are_a_part_that_no_training_reads(field):
    data = DATA["real"]
    held_out, training = getattr(data, f"held_out_{field}"), getattr(data, field)
    assert held_out.keys() == training.keys()
    for name in held_out:
        assert training[name]["part"][1] <= held_out[name]["part"][0]
        assert held_out[name] == {**training[name], "part": held_out[name]["part"]}
    assert data.demonstrations_after_sampling == data.demonstrations


def test_the_parts_of_the_human_comparisons_do_not_overlap():
    data = DATA["real"]
    for name in ("hh_helpful", "hh_harmless"):
        read_apart = (data.preferences(5), data.annotator_preferences(5), data.test_preferences)
        parts = [sources[name]["part"] for sources in read_apart]
        assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(parts))


@pytest.mark.parametrize("field", ["demonstrations", "public_demonstrations"])
def test_the_miniatures_dialogues_to_test_on_are_drawn_apart(field):
    data = DATA["miniature"]
    (held_out,), (training,) = (
        [[str(row["messages"]) for row in read(source, "", seed=0)] for source in getattr(data, name).values()]
        for name in (f"held_out_{field}", field)
    )
    assert len(held_out) == 200
    assert not set(held_out) & set(training)


@pytest.mark.parametrize("function", ["ghost_instructions.instructions", "safety_preprompts.preprompts"])
def test_what_the_experiments_bring_themselves(function):
    records = read({"function": f"experiments.parts.{function}", "format": "raw"}, "", seed=0)
    assert len(records) >= 7
    for record in records:
        check_record(record, "raw")
        assert all(isinstance(text, str) and text for text in record.values())
