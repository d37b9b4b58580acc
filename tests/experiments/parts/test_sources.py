"""Both data have all that the experiments read, and nothing that is held out is trained on."""

import dataclasses
import gzip
import itertools
import json

import pytest

from experiments.parts.choice import DATA
from experiments.parts.scales import SCALES
from experiments.parts.sources import Sources
from llama2_jax.data.records import check_record
from llama2_jax.data.sources import as_source, load_function, read, read_all
from llama2_jax.hub.address import parse_address

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
        if isinstance(value, dict) and field.name not in (
            "annotator",
            "ranker",
            "judge",
            "diversity_kinds",
            "safety_files",
        ):
            found |= {f"{field.name}.{name}": one for name, one in value.items()}
    return found


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", DATA)
def test_every_source_is_one_that_can_be_read(name, scale):
    sources = sources_in(DATA[name](scale))
    assert len(sources) >= 20
    for place, source in sources.items():
        source = as_source(source)
        assert not source.function or callable(load_function(source.function)), place


@pytest.mark.parametrize("name", DATA)
def test_annotator_ranker_and_judge_are_functions(name):
    data = DATA[name]("small")
    assert all(callable(load_function(part["function"])) for part in (data.annotator, data.ranker, data.judge))
    assert set(data.annotator_kinds) <= {"helpfulness", "safety"}
    assert set(data.annotator_inputs.values()) == {f"annotator_{kind}" for kind in data.annotator_kinds}
    assert all(data.annotator_preferences(5) for _ in data.annotator_kinds)


@pytest.mark.parametrize("name", DATA)
def test_every_field_is_documented_and_set(name):
    described = Sources.__doc__
    for field in dataclasses.fields(Sources):
        assert f"\n      {field.name}: " in described
        assert getattr(DATA[name]("small"), field.name) is not None


@pytest.mark.parametrize("name", DATA)
def test_limits_reach_every_file_of_comparisons(name):
    data = DATA[name]("small")
    for preferences in (data.preferences, data.annotator_preferences):
        assert {source["limit"] for source in preferences(7).values()} <= {7}


@pytest.mark.parametrize("field", ["demonstrations", "public_demonstrations"])
def test_real_dialogues_to_test_on_are_a_part_that_no_training_reads(field):
    data = DATA["real"]("7b")
    held_out, training = getattr(data, f"held_out_{field}"), getattr(data, field)
    assert held_out.keys() == training.keys()
    for name in held_out:
        assert training[name]["part"][1] <= held_out[name]["part"][0]
        assert held_out[name] == {**training[name], "part": held_out[name]["part"]}
    assert data.demonstrations_after_sampling(1) == data.demonstrations


@pytest.mark.parametrize("scale", ["small", "7b"])
def test_the_parts_of_the_human_comparisons_do_not_overlap(scale):
    data = DATA["real"](scale)
    for name in ("hh_helpful", "hh_harmless"):
        read_apart = (data.preferences(5), data.annotator_preferences(5), data.test_preferences)
        parts = [sources[name]["part"] for sources in read_apart]
        assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(parts))


@pytest.mark.parametrize("field", ["demonstrations", "public_demonstrations"])
def test_the_miniatures_dialogues_to_test_on_are_drawn_apart(field):
    data = DATA["miniature"]("tiny")
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


def hub_path(source):
    return parse_address(as_source({**source, **source["hub"], "hub": {}, "optional": False}).path)


@pytest.mark.parametrize("scale", SCALES)
def test_every_real_file_can_be_had(scale):
    """On the hub, where a run without local files reads it; only some of the text for small models is optional."""
    files = {place: source for place, source in sources_in(DATA["real"](scale)).items() if "path" in source}
    assert all(source.get("hub") or source.get("optional") for source in files.values())
    optional = {place for place, source in files.items() if source.get("optional")}
    little = {f"pretraining.{name}" for name in ("openstax", "factbook", "speeches", "code_proposals")}
    assert optional == (little if scale in ("tiny", "small") else set())
    for source in files.values():
        if source.get("hub"):
            address = hub_path(source)
            assert address.kind == "dataset" and address.path and (address.is_commit or address.revision == "main")


def published_rows():
    """Made-up conversations of HH-RLHF, in the files that are published: (domain, file, rows)."""
    for domain, folder in (("helpful", "helpful-base"), ("harmless", "harmless-base")):
        for split, count in (("train", 400), ("test", 40)):
            rows = [
                {side: f"\n\nHuman: {domain} {split} {n}\n\nAssistant: {side}" for side in ("chosen", "rejected")}
                for n in range(count)
            ]
            yield domain, f"{folder}/{split}.jsonl.gz", rows


@pytest.fixture
def comparisons(hub, tmp_path):
    """The same files on the hub, and the test files alone in a folder laid out as docs/data.md says."""
    packed = {file: gzip.compress("\n".join(map(json.dumps, rows)).encode()) for _, file, rows in published_rows()}
    commit = hub.publish("datasets/Anthropic/hh-rlhf", packed)
    wanted = hub_path(DATA["real"]("7b").test_preferences["hh_helpful"]).revision
    commits, _ = hub.repositories["datasets/Anthropic/hh-rlhf"]
    commits[wanted] = commits[commit]
    local = {"helpful": "preferences_helpful/hh_rlhf", "harmless": "preferences_safety/hh_rlhf"}
    for domain, file, _ in published_rows():
        if "test" in file:
            path = tmp_path / "local" / local[domain] / file
            path.parent.mkdir(parents=True)
            path.write_bytes(packed[file])
    (tmp_path / "empty").mkdir()
    return tmp_path


def openings(sources, root):
    return {str(row["messages"][0]["content"]) for rows in read_all(sources, root, seed=0).values() for row in rows}


@pytest.mark.parametrize(
    ("scale", "root", "expected"),
    [("7b", "empty", 880), ("7b", "local", 80), ("small", "local", 80), ("small", "empty", 80)],
)
def test_from_1b_on_the_training_files_are_read_and_no_test_is_trained_on(comparisons, scale, root, expected):
    data = DATA["real"](scale)
    evaluation = {name: source for name, source in data.evaluation_prompts.items() if name != "borderline"}
    uses = {
        "models": [data.preferences(10**9)],
        "annotators": [data.annotator_preferences(10**9)],
        "test": [data.test_preferences, evaluation],
    }
    found = {name: set().union(*(openings(one, comparisons / root) for one in parts)) for name, parts in uses.items()}
    assert len(set().union(*found.values())) == sum(map(len, found.values())) == expected
    # Those of all rounds, and PPO's.
    assert openings(data.ppo_prompts, comparisons / root) == found["models"]


def test_what_is_published_gives_the_rounds_their_counts():
    """A twentieth of the published comparisons (124,000 helpful ones, 44,800 harmless) is more than a round reads."""
    data = DATA["real"]("7b")
    for number in ROUNDS:
        for prompts in (data.annotation_prompts(number), data.sampling_prompts(number)):
            begin, end = prompts["helpful"]["part"]
            limits = {name: source["limit"] for name, source in prompts.items()}
            assert limits["helpful"] <= (end - begin) * 124_000 and limits["harmless"] <= (end - begin) * 44_800
            assert sum(limits.values()) == 7 * data.test_comparisons("7b")
    drawn = 400 * 512
    assert drawn / sum(source["limit"] for source in data.ppo_prompts.values()) < 3
