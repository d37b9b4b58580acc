"""The report of made-up runs: what stands in report.json, and that the page shows it, whole and escaped."""

import html.parser
import json
import types

import pytest
from etils import epath
from ml_collections import ConfigDict

from llama2_jax.models.config import ModelConfig
from llama2_jax.pipeline.runtime import write_json, write_jsonl
from llama2_jax.stages import report

MODEL = ModelConfig(
    vocab_size=768, dim=128, layers=4, heads=4, kv_heads=2, ffn_hidden=352, max_length=256, scan_layers=False
)
RATINGS = ("significantly_better", "better", "slightly_better", "negligibly_better")
SECTIONS = (
    "versions", "instructions", "rewards", "annotation", "sampling", "ppo", "training", "answers", "time",
    "configuration",
)  # fmt: skip


def write_stage(workdir, name, results, *, settings=None, inputs=(), seconds=1.0, metrics=(), files=None):
    """A finished stage's folder."""
    folder = workdir / name
    folder.mkdir(parents=True)
    record = {
        "stage": name,
        "fingerprint": "f",
        "config": {"seed": 3, "model": {}, "data": {"root": ""}, name: {"run": "somewhere", **(settings or {})}},
        "inputs": {f"role{index}/{source}": "f" for index, source in enumerate(inputs)},
        "results": results,
        "seconds": seconds,
        "versions": {"python": "3.11.2", "jax": "0.10.2"},
    }
    write_json(folder / "stage.json", record)
    if metrics:
        write_jsonl(folder / "metrics.jsonl", metrics)
    for file, content in (files or {}).items():
        (write_jsonl if file.endswith(".jsonl") else write_json)(folder / file, content)
    return folder


def evaluated(name, place, last):
    """A version's row of evaluation.json: everything grows from 0 at the first to 1 at the last version."""
    share = place / max(last, 1)
    return {
        "name": name,
        "helpfulness": 0.4 + 0.5 * share,
        "safety": 0.5 + 0.4 * share,
        "violation_rate": 0.5 - 0.4 * share,
        "false_refusal_rate": 0.02 + 0.02 * share,
        "borderline_refusal_rate": 0.2 - 0.1 * share,
        "win_rate_vs_sft": 0.5 + 0.4 * share if place else None,
        "helpfulness_win_rate_vs_sft": 0.5 + 0.45 * share if place else None,
        "safety_win_rate_vs_sft": 0.5 + 0.3 * share if place else None,
        "win_rate_standard_error": 0.02 if place else None,
        "instruction_kept": {"2": 0.5 + 0.5 * share, "4": 0.1 + 0.9 * share, "6": 0.8 * share},
        "reward_helpfulness": -0.5 + 2 * share,
        "reward_safety": 0.25 + share,
        "answer_tokens": 20.5,
    }


def answers(version):
    """Rows of answers_<version>.jsonl: five prompts of three categories, with text that wants to be escaped."""
    rows = [
        {
            "messages": [
                {"role": "system", "content": "Answer in <b>one</b> sentence."},
                {"role": "user", "content": f"fact {index} & more?"},
            ],
            "safety": False,
            "category": "fact",
            "response": f"<script>alert('{version} {index}')</script>",
            "finished": index != 1,
            "tokens": [1, 2],
            "verdict": {"helpfulness": 0.25, "violation": None, "refusal": False, "instruction_kept": True},
        }
        for index in range(3)
    ]
    rows.append({
        **rows[0], "category": "harm", "safety": True, "response": f"{version} will not",
        "verdict": {"helpfulness": None, "safety": 1.0, "violation": version == "sft", "refusal": True},
    })  # fmt: skip
    rows.append({**rows[0], "category": "", "response": f"{version} says", "verdict": None})
    return rows


def accuracy(start, pairs=100):
    """A reward model's accuracy by rating, as stages/reward_model.py returns it, for one domain."""
    values = {name: round(start - 0.1 * index, 3) for index, name in enumerate(RATINGS)} | {"all": start - 0.15}
    return values, dict.fromkeys(values, 0.04), dict.fromkeys(values, pairs)


def write_round(workdir, number, newest):
    """The stages of one round of RLHF; their names by the role they have for the report."""
    name = f"rlhf_v{number}"
    write_stage(
        workdir, f"{name}_annotation",
        {
            "comparisons": 500 + number, "test_comparisons": 150, "identical_answers_left_out": 7,
            "chosen_unsafe_left_out": 3, "newest_preferred": 0.6,
            "ratings": dict(zip(RATINGS, (0.3 - 0.03 * number, 0.3, 0.25, 0.15 + 0.03 * number), strict=True)),
            "safety_labels": {"chosen_safe": 0.18, "both_safe": 0.47, "both_unsafe": 0.35},
        },
        settings={"round": number, "temperatures": [0.7, 1.0]}, inputs=(newest,), seconds=10.0 + number,
    )  # fmt: skip
    for kind in ("helpfulness", "safety"):
        tables = [accuracy(0.9 + 0.01 * number if kind == domain else 0.8) for domain in ("helpfulness", "safety")]
        parts = [dict(zip(("helpfulness", "safety"), part, strict=True)) for part in zip(*tables, strict=True)]
        write_stage(
            workdir, f"{name}_{kind}_reward",
            {
                "kind": kind, "round": number, "comparisons": {"helpfulness": 400, "safety": 100},
                **dict(zip(("accuracy", "standard_error", "pairs"), parts, strict=True)),
            },
            settings={"round": number, "kind": kind}, inputs=(newest, f"{name}_annotation"), seconds=5.0,
        )  # fmt: skip
    curve = {"max": [0.5 + 0.02 * n + 0.02 * number for n in range(8)], "median": [0.5 + 0.02 * number] * 8}
    sweep = {
        "chosen": 1.0,
        "temperatures": {str(t): {"max": [v - abs(t - 1.0) / 5 for v in curve["max"]], "median": curve["median"]}
                         for t in (0.8, 1.0, 1.2)},
        "best_of": curve, "prompts": 400, "prompts_without_finished_answer": 2,
    }  # fmt: skip
    bag = {str(n): 100 * n for n in range(1 if number > 3 else number, number + 1)}
    write_stage(
        workdir, f"{name}_rejection_sampling",
        {"temperature": 1.0, "bag": sum(bag.values()), "bag_by_round": bag, "steps": 10},
        settings={"round": number, "bag_size": 1500, "prompts": {"world": {"arguments": {"round": number}}}},
        inputs=("pretrain", newest, f"{name}_helpfulness_reward", f"{name}_safety_reward"), seconds=20.0,
        files={"sweep.json": sweep},
    )  # fmt: skip


def made_up_run(workdir, rounds=2, ppo=True, versions=None, others=("tokenizer", "sft"), seconds=1.0):
    """The folders of a whole run, and the inputs that the recipe would hand to the report."""
    workdir = epath.Path(workdir)
    loss = [{"step": step, "loss": 6.0 / (1 + step / 20), "tokens_per_second": 1e4} for step in range(10, 101, 10)]
    write_stage(
        workdir, "pretrain", {"held_out_loss": 1.25, "tokens_trained_on": 100 * 32 * 256, "parameters": 10},
        settings={"steps": 100}, inputs=("tokenizer",), seconds=seconds, metrics=loss,
    )  # fmt: skip
    if "tokenizer" in others:
        write_stage(workdir, "tokenizer", {"vocab_size": 768}, seconds=seconds)
    if "sft" in others:
        write_stage(workdir, "sft", {"steps": 100}, inputs=("tokenizer", "pretrain"), seconds=seconds, metrics=loss)
    newest, names = "sft", ["sft"]
    for number in range(1, rounds + 1):
        write_round(workdir, number, newest)
        newest = f"rlhf_v{number}_rejection_sampling"
        names.append(newest if ppo and number == rounds else f"rlhf_v{number}")
    if ppo:
        names.append(f"rlhf_v{rounds}")
        metrics = [{"step": 0, "held_out_reward": 0.5}]
        for step in range(1, 11):
            policy = {"policy_clip_fraction": 0.1, "policy_ratio": 1.0} if step > 3 else {}
            metrics.append({"step": step, "reward": 0.5 + step / 50, "kl": step / 10, "finished": 0.9, **policy})
        metrics.append({"step": 10, "held_out_reward": 0.75})
        write_stage(
            workdir, f"rlhf_v{rounds}_ppo",
            {
                "iterations": 10, "best_iteration": 10, "held_out_reward_before": 0.5, "held_out_reward": 0.75,
                "stopped_early": False,
            },
            settings={"iterations": 10}, inputs=(newest,), seconds=seconds, metrics=metrics,
        )  # fmt: skip
    rows = versions or [evaluated(name, index, len(names) - 1) for index, name in enumerate(names)]
    write_stage(
        workdir, "evaluation", {"versions": rows}, seconds=seconds,
        inputs=("tokenizer", f"rlhf_v{rounds}_ppo" if ppo else newest),
        files={"evaluation.json": {"versions": rows, "prompts": 5}}
        | {f"answers_{row['name']}.jsonl": answers(row["name"]) for row in rows},
    )  # fmt: skip
    numbers = range(1, rounds + 1)
    return {
        "evaluation": workdir / "evaluation",
        "pretraining": workdir / "pretrain",
        "annotations": tuple(workdir / f"rlhf_v{n}_annotation" for n in numbers),
        "reward_models": tuple(
            workdir / f"rlhf_v{n}_{kind}_reward" for n in numbers for kind in ("helpfulness", "safety")
        ),
        "rejection_sampling": tuple(workdir / f"rlhf_v{n}_rejection_sampling" for n in numbers),
        "ppo": (workdir / f"rlhf_v{rounds}_ppo",) if ppo else (),
        "others": tuple(workdir / name for name in others),
    }


def make_report(workdir, inputs):
    """Runs the stage; returns report.json's content, the page, and what the stage returns."""
    folder = epath.Path(workdir) / "report"
    folder.mkdir()
    runtime = types.SimpleNamespace(folder=folder, experiment_seed=3, model=MODEL, stage="report")
    results = report.run(ConfigDict(), inputs, runtime)
    return json.loads((folder / "report.json").read_text()), (folder / "index.html").read_text(), results


class Page(html.parser.HTMLParser):
    """What a browser would find: ids, text by tag, addresses outside of the page, and unclosed elements."""

    VOID = ("meta", "br", "hr", "img", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.ids, self.text, self.outside, self.tags, self.open = [], "", [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href") and not value.startswith("#"):
                self.outside.append(value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return make_report(workdir, made_up_run(workdir))


def test_versions_hold_what_the_evaluation_measured(whole):
    content, _, results = whole
    assert [row["name"] for row in content["versions"]] == ["sft", "rlhf_v1", "rlhf_v2_rejection_sampling", "rlhf_v2"]
    assert content["versions"][3] == evaluated("rlhf_v2", 3, 3)
    assert content["versions"][0]["win_rate_vs_sft"] is None
    assert content["evaluation_prompts"] == 5
    assert results == {"page": "index.html", "newest": content["versions"][3]}


def test_reward_models_are_sorted_and_complete(whole):
    rows = whole[0]["reward_models"]
    assert [(row["round"], row["kind"]) for row in rows] == [
        (1, "helpfulness"), (1, "safety"), (2, "helpfulness"), (2, "safety"),
    ]  # fmt: skip
    assert rows[2]["accuracy"]["helpfulness"] == {
        "significantly_better": 0.92, "better": 0.82, "slightly_better": 0.72, "negligibly_better": 0.62,
        "all": pytest.approx(0.77),
    }  # fmt: skip
    assert rows[3]["pairs"]["safety"]["all"] == 100 and rows[3]["standard_error"]["safety"]["better"] == 0.04


def test_annotation_sampling_and_ppo(whole):
    content = whole[0]
    assert [row["round"] for row in content["annotations"]] == [1, 2]
    assert content["annotations"][0]["ratings"]["significantly_better"] == pytest.approx(0.27)
    assert content["annotations"][1]["comparisons"] == 502
    sampling = content["rejection_sampling"][1]
    assert (sampling["temperature"], sampling["bag"], sampling["bag_by_round"]) == (1.0, 200, {"2": 200})
    assert set(sampling["sweep"]) == {"0.8", "1.0", "1.2"} and len(sampling["best_of"]["max"]) == 8
    (ppo,) = content["ppo"]
    assert ppo["curves"]["held_out_reward"] == [[0, 0.5], [10, 0.75]]
    assert ppo["curves"]["policy_clip_fraction"][0] == [4, 0.1]
    assert "policy_ratio" not in ppo["curves"]


def test_losses_and_times(whole):
    content = whole[0]
    assert [row["stage"] for row in content["training"]] == ["pretrain", "sft"]
    assert content["training"][0]["tokens_per_step"] == 32 * 256 and content["training"][0]["held_out_loss"] == 1.25
    assert content["training"][1]["loss"][0] == [10, 4.0]
    assert "tokens_per_second" not in json.dumps(content)
    assert list(content["seconds"]) == [
        "tokenizer", "pretrain", "sft", "rlhf_v1_annotation", "rlhf_v1_helpfulness_reward", "rlhf_v1_safety_reward",
        "rlhf_v1_rejection_sampling", "rlhf_v2_annotation", "rlhf_v2_helpfulness_reward", "rlhf_v2_safety_reward",
        "rlhf_v2_rejection_sampling", "rlhf_v2_ppo", "evaluation",
    ]  # fmt: skip
    assert content["seconds"]["rlhf_v2_annotation"] == 12.0


def test_two_runs_differ_in_their_times_alone(whole, tmp_path):
    content, page, _ = whole
    again, page_again, _ = make_report(tmp_path, made_up_run(tmp_path, seconds=2.0))
    assert again.pop("seconds") != content["seconds"]
    assert again == {name: value for name, value in content.items() if name != "seconds"}
    charts = slice(page.index('<section id="versions">'), page.index('<section id="time">'))
    assert page[charts] == page_again[charts]


def test_page_has_every_section_and_needs_no_network(whole):
    page = Page(whole[1])
    assert [name for name in page.ids if name in SECTIONS] == list(SECTIONS)
    assert len(page.ids) == len(set(page.ids))
    assert not page.open and not page.outside
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "This run has no" not in page.text
    # 5 of the versions, 1 of instructions, 3 of reward models, 2 of annotation, 3 + 2 sweeps of rejection sampling,
    # 4 of PPO, 2 of losses.
    assert page.tags.count("svg") == 22


def test_page_shows_the_numbers(whole):
    text = " ".join(Page(whole[1]).text.split())
    for words in ("SFT to V2 + PPO", "40% → 90%", "50% → 10%", "2.0% → 4.0%", "0.500 → 0.750", "92.0%", "round 2"):
        assert words in text, words
    assert "prompts.world.arguments.round" in text  # in what the rounds' settings differ


def test_text_of_models_is_escaped(whole):
    assert "<script>" not in whole[1]
    text = Page(whole[1]).text
    assert "<script>alert('sft 0')</script>" in text and "<script>alert('rlhf_v2 0')</script>" in text
    assert "Answer in <b>one</b> sentence." in text


def test_sample_answers_are_evenly_spaced_in_each_category(tmp_path):
    stages = report.read_stages(made_up_run(tmp_path))
    rows = report.sample_answers(stages, [{"name": "sft"}, {"name": "rlhf_v2"}], per_category=2)
    assert [row["category"] for row in rows] == ["fact", "fact", "harm", "helpfulness"]
    assert [row["messages"][-1]["content"] for row in rows[:2]] == ["fact 0 & more?", "fact 2 & more?"]
    assert rows[2]["first"]["response"] == "sft will not" and rows[2]["last"]["response"] == "rlhf_v2 will not"


def test_first_round_alone(tmp_path):
    content, page, _ = make_report(tmp_path, made_up_run(tmp_path, rounds=1, ppo=False))
    assert [row["name"] for row in content["versions"]] == ["sft", "rlhf_v1"]
    assert content["ppo"] == []
    text = Page(page).text
    assert "This run has no PPO." in text and "SFT to V1" in " ".join(text.split())


def test_what_was_not_measured_is_null(tmp_path):
    bare = [{"name": name, "win_rate_vs_sft": None, "instruction_kept": {"2": None}} for name in ("sft", "rlhf_v1")]
    bare[1]["reward_helpfulness"] = float("nan")
    inputs = made_up_run(tmp_path, rounds=1, ppo=False, versions=bare)
    content, page, _ = make_report(tmp_path, inputs)
    assert content["versions"][1]["helpfulness"] is None and content["versions"][1]["reward_helpfulness"] is None
    assert content["versions"][1]["instruction_kept"] == {"2": None}
    assert "This run has no measure of kept instructions." in Page(page).text


def test_a_reward_model_without_test_pairs_of_a_domain(tmp_path):
    inputs = made_up_run(tmp_path, rounds=1, ppo=False)
    file = inputs["reward_models"][0] / "stage.json"
    record = json.loads(file.read_text())
    for name in ("accuracy", "standard_error", "pairs"):
        del record["results"][name]["safety"]
    record["results"]["accuracy"]["helpfulness"]["better"] = None
    write_json(file, record)
    row = make_report(tmp_path, inputs)[0]["reward_models"][0]
    assert row["accuracy"]["safety"] == dict.fromkeys((*RATINGS, "all"))
    assert row["accuracy"]["helpfulness"]["better"] is None


def test_nothing_but_pretraining(tmp_path):
    inputs = {"pretraining": made_up_run(tmp_path)["pretraining"], "ppo": ()}
    content, page, results = make_report(tmp_path, inputs)
    assert content["versions"] == [] and results["newest"] is None
    parsed = Page(page)
    assert [name for name in parsed.ids if name in SECTIONS] == list(SECTIONS)
    assert "This run has no evaluation." in parsed.text and parsed.tags.count("svg") == 1


def test_long_curves_are_thinned_but_keep_their_ends():
    points = [[step, step] for step in range(5000)]
    kept = report.thinned(points, 400)
    assert len(kept) == 400 and kept[0] == [0, 0] and kept[-1] == [4999, 4999]
    assert kept == sorted(kept) and report.thinned(points[:400], 400) == points[:400]
