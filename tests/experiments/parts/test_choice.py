"""What follows the colon: a scale, and perhaps the data; values follow the one or the other."""

import pytest
from ml_collections import ConfigDict

from experiments import rlhf_v5
from experiments.parts.choice import DATA, Choice, parse_argument
from experiments.parts.stages import stages_with_role


@pytest.mark.parametrize(
    ("argument", "scale", "data", "variant"),
    [
        ("tiny", "tiny", "miniature", "tiny"),
        ("7b", "7b", "real", "7b"),
        ("tiny,real", "tiny", "real", "tiny-real"),
        ("small,miniature", "small", "miniature", "small-miniature"),
        ("tiny,miniature", "tiny", "miniature", "tiny"),
        ("70b,real", "70b", "real", "70b"),
    ],
)
def test_an_argument_is_a_scale_and_perhaps_the_data(argument, scale, data, variant):
    choice = parse_argument(argument)
    assert choice == Choice(scale, data) and choice.variant == variant


@pytest.mark.parametrize(
    ("argument", "unknown"),
    [
        ("huge", "scale 'huge'"),
        ("", "scale ''"),
        ("real", "scale 'real'"),
        ("real,tiny", "scale 'real'"),
        ("tiny,", "data ''"),
        ("tiny,imaginary", "data 'imaginary'"),
        ("tiny,real,real", "data 'real,real'"),
    ],
)
def test_what_is_unknown_is_named_with_both_kinds_of_choices(argument, unknown):
    with pytest.raises(ValueError, match=f"unknown {unknown} in .*:{argument};.*tiny, small, 1b.*miniature, real"):
        rlhf_v5.get_config(argument)


def stages_of(argument, *roles):
    config = rlhf_v5.get_config(argument)
    return [config[name] for role in roles for name in stages_with_role(config, role)]


def without_limits(config):
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            without_limits(value)
        elif name == "limit":
            config.limit = 1
    return config


@pytest.mark.parametrize(
    ("data", "scales"), [(data, ("tiny", "small")) for data in DATA] + [("miniature", ("small", "7b"))]
)
def test_what_a_stage_reads_follows_the_data(data, scales):
    """Of real files tiny reads the same ones as small, and fewer records."""
    one, other = (without_limits(rlhf_v5.get_config(f"{scale},{data}")) for scale in scales)
    assert one.stages == other.stages
    for name in one.stages:
        for field in ("inputs", "sources", "held_out", "prompts", "preferences", "annotator", "judge"):
            assert one[name].get(field) == other[name].get(field), f"{name}.{field}"


@pytest.mark.parametrize(
    ("data", "too_long", "pairs_too_long", "start", "bag", "demonstrations"),
    [
        ("miniature", "raise", "raise", "sft", 1500, {"vendor", "vendor_instructed"}),
        ("real", "drop", "truncate_left", "pretrain", 0, {"lima", "safety"}),
    ],
)
@pytest.mark.parametrize("scale", ["tiny", "small", "7b"])
def test_settings_that_follow_the_data(scale, data, too_long, pairs_too_long, start, bag, demonstrations):
    argument = f"{scale},{data}"
    assert {stage.finetune.too_long for stage in stages_of(argument, "finetuning", "rejection_sampling")} == {too_long}
    models = stages_of(argument, "reward_model", "annotator_model")
    assert {stage.too_long for stage in models} == {pairs_too_long}
    assert len(models) == (10 if data == "miniature" else 12)
    for stage in stages_of(argument, "rejection_sampling"):
        joining = demonstrations - ({"vendor_instructed"} if stage.round < 3 else set())
        assert (stage.inputs.start, stage.bag_size, set(stage.sources)) == (start, bag, joining)
        sft = rlhf_v5.get_config(argument).finetuning.learning_rate
        assert stage.finetune.learning_rate == (sft if start == "pretrain" else sft / 2)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [("tiny", 300), ("7b,miniature", 300), ("tiny,real", 60), ("small", 60), ("1b", 1000), ("7b", 1000)],
)
def test_held_out_comparisons(argument, expected):
    assert {stage.test_comparisons for stage in stages_of(argument, "annotation")} == {expected}


@pytest.mark.parametrize("argument", ["tiny,real", "small", "1b", "7b", "13b", "34b", "70b"])
def test_of_real_data_a_round_has_more_prompts_than_it_holds_out(argument):
    for stage in stages_of(argument, "annotation"):
        assert 2 * stage.test_comparisons < sum(source.limit for source in stage.prompts.values())


def test_of_the_miniature_a_round_leaves_comparisons_to_train_on():
    for stage in stages_of("tiny", "annotation"):
        assert stage.test_comparisons < sum(source.arguments.count for source in stage.prompts.values())


@pytest.mark.parametrize("scale", ["tiny", "small"])
def test_sizes_follow_the_scale(scale):
    one, other = (rlhf_v5.get_config(f"{scale},{data}") for data in DATA)
    for field in ("mesh", "answer_tokens", "samples_per_prompt", "optimizer"):
        assert one[field] == other[field]
    for name in ("batch_size", "steps", "learning_rate", "evaluate_every"):
        assert one.pretrain[name] == other.pretrain[name]
    ppo = {"prompts", "held_out_prompts"}
    assert {f: v for f, v in one.rlhf_v5_ppo.items() if f not in ppo} == {
        f: v for f, v in other.rlhf_v5_ppo.items() if f not in ppo
    }


def test_the_vocabulary_is_one_that_the_data_can_fill():
    sizes = {name: rlhf_v5.get_config(name).model.vocab_size for name in ("tiny", "tiny,real", "7b", "7b,miniature")}
    assert sizes == {"tiny": 1024, "tiny,real": 2048, "7b": 32000, "7b,miniature": 2048}
    assert rlhf_v5.get_config("7b,miniature").tokenizer.vocab_size == 2048
