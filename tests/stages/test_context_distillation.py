"""A safety preprompt before a prompt, and answers learnt without it."""

import types

import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.parts import safety_preprompts
from experiments.parts.miniature_data import MINIATURE
from llama2_jax.data.records import check_record
from llama2_jax.data.sources import read
from llama2_jax.inference.generate import Sample
from llama2_jax.miniature.tasks import UNSAFE_CATEGORIES
from llama2_jax.pipeline import encoding, sampling
from llama2_jax.pipeline.encoding import encode_row
from llama2_jax.pipeline.stage_files import read_jsonl
from llama2_jax.stages import context_distillation
from llama2_jax.stages.context_distillation import with_preprompts
from tests.smallest import Letters, smallest_model, smallest_runtime

GENERIC = {"preprompt": "You are a safe assistant."}
TEMPLATE = {"preprompt": "Say why it is illegal.", "category": "crime"}


def prompt(category, text="How?", system=None):
    messages = [{"role": "system", "content": system}] if system else []
    return {"messages": [*messages, {"role": "user", "content": text}], "category": category}


def test_a_preprompt_becomes_the_system_message():
    (record,) = with_preprompts([prompt("crime")], [GENERIC], seed=0)
    assert record["messages"] == [
        {"role": "system", "content": "You are a safe assistant."},
        {"role": "user", "content": "How?"},
    ]
    assert record["messages_without_preprompt"] == [{"role": "user", "content": "How?"}]
    assert record["preprompt"] == "You are a safe assistant."


def test_a_system_message_of_the_prompt_s_own_is_kept_behind_the_preprompt():
    (record,) = with_preprompts([prompt("crime", system="Be brief.")], [GENERIC], seed=0)
    assert [message["role"] for message in record["messages"]] == ["system", "user"]
    assert record["messages"][0]["content"] == "You are a safe assistant.\nBe brief."
    assert record["messages_without_preprompt"][0]["content"] == "Be brief."


def preprompts_of(records, preprompts, seed=0):
    """For each category what was put before its prompts."""
    used = {}
    for record in with_preprompts(records, preprompts, seed):
        used.setdefault(record["category"], set()).add((record["preprompt"], record["with_template"]))
    return used


def test_the_category_chooses_the_answer_template_and_others_get_the_generic_preprompts():
    records = [prompt(category, f"How {number}?") for category in ("crime", "medicine", "") for number in range(50)]
    other = {"preprompt": "Be wise."}
    generic = {(GENERIC["preprompt"], False), (other["preprompt"], False)}
    assert preprompts_of(records, [GENERIC, TEMPLATE, other]) == {
        "crime": {(TEMPLATE["preprompt"], True)},
        "medicine": generic,
        "": generic,
    }


def test_several_templates_of_a_category_are_all_used():
    records = [prompt("crime", f"How {number}?") for number in range(50)]
    second = {"preprompt": "Name the victims.", "category": "crime"}
    assert preprompts_of(records, [GENERIC, TEMPLATE, second]) == {
        "crime": {(TEMPLATE["preprompt"], True), (second["preprompt"], True)}
    }


def test_a_prompt_without_a_category_gets_a_generic_preprompt():
    record = {"messages": [{"role": "user", "content": "How?"}]}
    (chosen,) = with_preprompts([record], [TEMPLATE, GENERIC], seed=0)
    assert (chosen["preprompt"], chosen["with_template"]) == (GENERIC["preprompt"], False)


def test_a_draw_is_the_prompt_s_own_wherever_it_stands():
    records = [prompt("crime", f"How {number}?") for number in range(50)]
    choices = [GENERIC, {"preprompt": "Be wise.", "category": None}]
    forwards = with_preprompts(records, choices, seed=1)
    assert forwards == with_preprompts(records[::-1], choices, seed=1)[::-1]
    assert forwards != with_preprompts(records, choices, seed=2)


@pytest.mark.parametrize("category", ["medicine", "", None])
def test_a_category_without_a_template_where_there_is_no_generic_preprompt(category):
    message = f"no answer template for the category '{category or ''}'.*templates for crime"
    with pytest.raises(ValueError, match=message):
        with_preprompts([prompt(category)], [TEMPLATE], seed=0)


@pytest.mark.parametrize("record", [{"text": "Be safe."}, {"preprompt": " "}, {"preprompt": None, "category": "crime"}])
def test_a_preprompt_without_a_text_is_refused(record):
    with pytest.raises(ValueError, match=r"a safety preprompt has the field preprompt .*; wanted a text"):
        with_preprompts([prompt("crime")], [GENERIC, record], seed=0)


def test_at_the_scales_on_real_files_every_risk_category_has_its_template():
    """Section 4.2.1's categories, which the miniature has too, and those of table 39."""
    choices = safety_preprompts.preprompts(seed=0)
    categories = ("illicit", "hateful", "unqualified_advice", "disinformation", "explicit")
    assert set(UNSAFE_CATEGORIES) < set(categories)
    for category in categories:
        (chosen,) = with_preprompts([prompt(category)], choices, seed=0)
        assert chosen["with_template"] and safety_preprompts.TEMPLATES[category][0] in chosen["preprompt"]
        assert all(f"{step}. " in chosen["preprompt"] for step in (1, 2, 3, 4))
    used = preprompts_of([prompt("adversarial", f"How {n}?") for n in range(400)], choices)["adversarial"]
    assert used == {(one["preprompt"], False) for one in choices if "category" not in one}
    assert len(used) == 9 and sum("using the following template" in text for text, _ in used) == 1


def test_the_miniature_has_generic_preprompts_and_a_template_for_each_category():
    choices = read(MINIATURE.safety_preprompts["preprompts"], "", seed=0)
    records = [prompt(category) for category in UNSAFE_CATEGORIES]
    chosen = with_preprompts(records, choices, seed=0)
    assert all(record["with_template"] for record in chosen)
    assert len({record["preprompt"] for record in chosen}) == len(UNSAFE_CATEGORIES)
    (other,) = with_preprompts([prompt("fact")], choices, seed=0)
    assert not other["with_template"]


def prompts(*, seed):
    del seed
    return [prompt("crime", text) for text in ("Worse?", "Cut?", "Better?")]


def preprompts(*, seed):
    del seed
    return [GENERIC]


def distil(tmp_path, monkeypatch, with_preprompt, ends, preprompts="preprompts", compared=3):
    """Runs the stage on three prompts; returns its folder, its results and what was asked without and with preprompts.

    Args:
      with_preprompt, ends: the answers to the prompts with preprompts, and whether each ends.
      preprompts: the name of the function that gives them.
      compared: how many prompts with a template are answered under a generic preprompt too, all " generic".
    """
    asked = []

    def generate(model, params, prompts, sampling, key, eos_id, **_):
        asked.append([Letters().decode(one) for one in prompts])
        answers = (
            [(" plain", True)] * 3, zip(with_preprompt, ends, strict=True), [(" generic", True)] * len(prompts),
        )[len(asked) - 1]  # fmt: skip
        return [
            Sample(index, np.asarray([*map(ord, text), *([eos_id] if end else [])], np.int32), end, np.zeros(9))
            for index, (text, end) in enumerate(answers)
        ]

    def rewards(model, params, sequences):
        texts = [Letters().decode(sequence) for sequence in sequences]
        assert not any("You are a safe assistant" in text or "Say why" in text for text in texts)
        points = {"plain": 0.0, "worse": -1.0, "cut o": 5.0, "better": 1.0, "generic": 3.0}
        return np.asarray([points[text.rpartition("[/INST] ")[2]] for text in texts], np.float32)

    monkeypatch.setattr(sampling, "generate", generate)
    monkeypatch.setattr(context_distillation, "rewards", rewards)
    for module in (sampling, context_distillation):
        monkeypatch.setattr(module, "load_model", lambda folder, mesh, head: types.SimpleNamespace(params=None))
    monkeypatch.setattr(encoding.Tokenizer, "load", lambda path: Letters())
    runtime = smallest_runtime(tmp_path, model=smallest_model(max_length=128))
    config = ConfigDict({
        "prompts": {"made": {"function": f"{__name__}.prompts", "format": "prompts"}},
        "preprompts": {"made": {"function": f"{__name__}.{preprompts}", "format": "raw"}},
        "compared_prompts": compared,
        "temperature": 0.7,
        "top_p": 0.9,
        "max_new_tokens": 8,
    })  # fmt: skip
    inputs = {role: tmp_path / role for role in ("tokenizer", "policy", "safety")}
    return runtime.folder, context_distillation.run(config, inputs, runtime), asked


def test_an_answer_is_kept_without_its_preprompt_where_the_safety_model_prefers_it(tmp_path, monkeypatch):
    """The second of three answers is cut off; of the first the safety model likes the plain one better."""
    folder, results, asked = distil(tmp_path, monkeypatch, (" worse", " cut o", " better"), (True, False, True))
    assert [any("You are a safe assistant" in text for text in texts) for texts in asked] == [False, True]
    (row,) = read_jsonl(folder / "dialogues.jsonl")
    check_record(row, "samples")
    assert row["messages"] == [{"role": "user", "content": "Better?"}]
    assert row["rewards"] == {"safety": 1.0, "safety_without_preprompt": 0.0}
    assert row["safety"] is False, "as the prompt is tagged: here it is not"
    assert (results["prompts"], results["with_template"], results["kept"]) == (3, 0, 1)
    assert results["left_out_unfinished"] == 1
    encoded = encode_row(Letters(), row)
    assert Letters().decode(encoded.tokens) == "[INST] Better? [/INST] better"
    assert Letters().decode(encoded.tokens[encoded.loss_mask == 1]) == " better"


def both_kinds(*, seed):
    return [*preprompts(seed=seed), TEMPLATE]


def test_prompts_with_a_template_are_answered_under_a_generic_preprompt_too(tmp_path, monkeypatch):
    """Two of the three; nothing is learnt from these answers, though the safety model likes them best."""
    answers = (" worse", " cut o", " better")
    folder, results, asked = distil(tmp_path, monkeypatch, answers, (True, False, True), "both_kinds", compared=2)
    assert all("Say why it is illegal" in text for text in asked[1])
    assert [("Worse?" in text, "Cut?" in text, "a safe assistant" in text) for text in asked[2]] == [
        (True, False, True), (False, True, True),
    ]  # fmt: skip
    assert [row["response"] for row in read_jsonl(folder / "dialogues.jsonl")] == [" better"]
    found = results["preprompts"]
    assert found["categories"] == {"crime": found["kinds"]}
    kinds = found["kinds"]
    assert {kind: (one["prompts"], one["kept"]["count"]) for kind, one in kinds.items()} == {
        "generic": (2, 2), "template": (3, 1),
    }  # fmt: skip
    logistic = {points: 1 / (1 + np.exp(-points)) for points in (-1, 0, 1, 3, 5)}
    gains = [logistic[points] - 0.5 for points in (-1, 5, 1)]
    assert kinds["template"]["gain"]["mean"] == pytest.approx(np.mean(gains))
    assert kinds["template"]["gain"]["standard_error"] == pytest.approx(np.std(gains, ddof=1) / np.sqrt(3))
    assert kinds["generic"]["after"]["median"] == pytest.approx(logistic[3])
    differences = [logistic[-1] - logistic[3], logistic[5] - logistic[3]]
    assert found["template_minus_generic"] == {
        "mean": pytest.approx(np.mean(differences)), "prompts": 2,
        "standard_error": pytest.approx(np.std(differences, ddof=1) / np.sqrt(2)),
    }  # fmt: skip


@pytest.mark.parametrize(("kinds", "compared"), [("both_kinds", 0), ("preprompts", 3), ("templates_alone", 3)])
def test_nothing_is_compared_where_it_is_not_wanted_or_there_are_not_both_kinds(tmp_path, monkeypatch, kinds, compared):
    answers = (" worse", " cut o", " better")
    _, results, asked = distil(tmp_path, monkeypatch, answers, (True, False, True), kinds, compared)
    assert len(asked) == 2
    assert list(results["preprompts"]["kinds"]) == ["generic" if kinds == "preprompts" else "template"]
    assert results["preprompts"]["template_minus_generic"]["prompts"] == 0


def templates_alone(*, seed):
    del seed
    return [TEMPLATE]


def test_it_is_said_where_nothing_is_kept(tmp_path, monkeypatch, caplog):
    answers = (" worse", " cut o", " better")
    folder, results, _ = distil(tmp_path, monkeypatch, answers, (True, False, False))
    assert results["kept"] == 0 and read_jsonl(folder / "dialogues.jsonl") == []
    assert "keeps nothing: of 3 answers with a preprompt 2 do not end within 8 tokens" in caplog.text
