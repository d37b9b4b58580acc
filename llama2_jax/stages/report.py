"""The report: what an experiment has reached, as numbers (report.json) and as a page to look at (index.html).

Reads what the earlier stages wrote and computes nothing anew: a measure that a run does not have is null, never
invented. Times stand under "seconds" alone, so two runs of one configuration give the same report.json but for that.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from etils import epath
from ml_collections import ConfigDict

from llama2_jax.evaluation.reward_accuracy import RATINGS
from llama2_jax.pipeline.runtime import Inputs, Runtime, as_folders, read_json, read_jsonl, write_json, write_text
from llama2_jax.report.page import render_page
from llama2_jax.training.metrics import read_metrics

DOMAINS = ("helpfulness", "safety")
VERSION_MEASURES = (
    "helpfulness",
    "safety",
    "violation_rate",
    "false_refusal_rate",
    "borderline_refusal_rate",
    "win_rate_vs_sft",
    "win_rate_standard_error",
    "helpfulness_win_rate_vs_sft",
    "safety_win_rate_vs_sft",
    "reward_helpfulness",
    "reward_safety",
    "answer_tokens",
)
PPO_CURVES = (
    "reward",
    "held_out_reward",
    "kl",
    "policy_clip_fraction",
    "finished",
    "answer_tokens",
    "explained_variance",
)


@dataclasses.dataclass(frozen=True)
class FinishedStage:
    """An earlier stage: the role it has for the report, its folder and its stage.json."""

    role: str
    folder: epath.Path
    record: Mapping

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.folder.name

    @property
    def results(self) -> Mapping:
        """What the stage's `run` returned."""
        return self.record.get("results") or {}

    @property
    def settings(self) -> Mapping:
        """The stage's own part of the configuration."""
        return self.record.get("config", {}).get(self.name) or {}


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Writes report.json and index.html; returns the newest version's measures.

    The inputs' roles are evaluation, pretraining, annotations, reward_models, rejection_sampling, ppo and others; each
    may be missing or empty.
    """
    del config
    stages = read_stages(inputs)
    report = build_report(stages, runtime)
    records = {stage.name: stage.record for stage in stages}
    write_json(runtime.folder / "report.json", report)
    page = render_page(report, sample_answers(stages, report["versions"]), records)
    write_text(runtime.folder / "index.html", page)
    return {"page": "index.html", "newest": report["versions"][-1] if report["versions"] else None}


def read_stages(inputs: Inputs) -> list[FinishedStage]:
    """The stages behind the report's inputs, each after the stages whose results it used."""
    found = {
        folder.name: FinishedStage(role, folder, read_json(folder / "stage.json"))
        for role, folders in inputs.items()
        for folder in as_folders(folders)
    }
    ordered: dict[str, FinishedStage] = {}

    def place(stage: FinishedStage) -> None:
        for source in stage.record.get("inputs", {}):
            earlier = found.get(source.rpartition("/")[2])
            if earlier and earlier.name not in ordered and earlier is not stage:
                place(earlier)
        ordered[stage.name] = stage

    for stage in found.values():
        if stage.name not in ordered:
            place(stage)
    return list(ordered.values())


def build_report(stages: Sequence[FinishedStage], runtime: Runtime) -> dict:
    """The content of report.json."""

    def rows(role: str, row) -> list[dict]:
        return [{"stage": stage.name, **row(stage)} for stage in stages if stage.role == role]

    evaluation = next((read_json(s.folder / "evaluation.json") for s in stages if s.role == "evaluation"), {})
    reward_models = sorted(rows("reward_models", _reward_model), key=lambda row: (row["round"] or 0, row["kind"] or ""))
    return finite({
        "seed": runtime.experiment_seed,
        "model": dataclasses.asdict(runtime.model),
        "evaluation_prompts": evaluation.get("prompts"),
        "versions": [_version(row) for row in evaluation.get("versions", ())],
        "reward_models": reward_models,
        "annotations": rows("annotations", _annotation),
        "rejection_sampling": rows("rejection_sampling", _rejection_sampling),
        "ppo": rows("ppo", _ppo),
        "training": [_training(s) for s in stages if s.role in ("pretraining", "others") and _curves(s).get("loss")],
        "seconds": {stage.name: stage.record.get("seconds") for stage in stages},
    })  # fmt: skip


def sample_answers(
    stages: Sequence[FinishedStage], versions: Sequence[Mapping], per_category: int = 2, categories: int = 12
) -> list[dict]:
    """Prompts with the first and the last version's answers: evenly spaced in each category, whatever was answered.

    Returns:
      Entries {category, messages, first, last}; the last two are rows of the versions' answers_<version>.jsonl.
    """
    folder = next((stage.folder for stage in stages if stage.role == "evaluation"), None)
    files = [folder / f"answers_{version['name']}.jsonl" for version in (versions[0], versions[-1])] if versions else []
    if not files or not all(file.exists() for file in files):
        return []
    first, last = (read_jsonl(file) for file in files)
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(first):
        groups.setdefault(row.get("category") or ("safety" if row.get("safety") else "helpfulness"), []).append(index)
    chosen = [
        (category, group[(2 * place + 1) * len(group) // (2 * count)])
        for category, group in sorted(groups.items())[:categories]
        for count in [min(per_category, len(group))]
        for place in range(count)
    ]
    return [
        {"category": category, "messages": first[index]["messages"], "first": first[index], "last": last[index]}
        for category, index in chosen
        if index < len(last)
    ]


def finite(tree: object) -> object:
    """A JSON tree with None for every number that is not finite: JSON has no word for NaN."""
    if isinstance(tree, Mapping):
        return {name: finite(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def thinned(points: Sequence[list[float]], limit: int = 400) -> list[list[float]]:
    """At most `limit` of a curve's points, evenly spaced, the first and the last among them."""
    if len(points) <= limit:
        return list(points)
    return [points[round(index * (len(points) - 1) / (limit - 1))] for index in range(limit)]


def _version(row: Mapping) -> dict:
    return {"name": row["name"], **{name: row.get(name) for name in VERSION_MEASURES},
            "instruction_kept": row.get("instruction_kept") or {}}  # fmt: skip


def _reward_model(stage: FinishedStage) -> dict:
    def table(name: str) -> dict:
        found = stage.results.get(name) or {}
        # The two domains always; beside them human comparisons from files, where the run tested on some.
        domains = (*DOMAINS, *(domain for domain in found if domain not in DOMAINS))
        return {d: {r: (found.get(d) or {}).get(r) for r in (*RATINGS, "all")} for d in domains}

    measures = {name: table(name) for name in ("accuracy", "standard_error", "pairs")}
    return {
        "round": stage.results.get("round", stage.settings.get("round")),
        "kind": stage.results.get("kind", stage.settings.get("kind")),
        "comparisons": stage.results.get("comparisons"),
        **measures,
    }


def _annotation(stage: FinishedStage) -> dict:
    fields = (
        "comparisons", "test_comparisons", "identical_answers_left_out", "chosen_unsafe_left_out", "newest_preferred",
    )  # fmt: skip
    return {
        "round": stage.settings.get("round"),
        **{field: stage.results.get(field) for field in fields},
        "ratings": stage.results.get("ratings") or {},
        "safety_labels": stage.results.get("safety_labels") or {},
    }


def _rejection_sampling(stage: FinishedStage) -> dict:
    sweep_file = stage.folder / "sweep.json"
    sweep = read_json(sweep_file) if sweep_file.exists() else {}
    return {
        "round": stage.settings.get("round"),
        "temperature": sweep.get("chosen"),
        "sweep": sweep.get("temperatures") or {},
        "best_of": sweep.get("best_of") or {},
        "prompts": sweep.get("prompts"),
        "prompts_without_finished_answer": sweep.get("prompts_without_finished_answer"),
        "bag": stage.results.get("bag"),
        "bag_by_round": stage.results.get("bag_by_round") or {},
    }


def _ppo(stage: FinishedStage) -> dict:
    fields = ("iterations", "best_iteration", "held_out_reward_before", "held_out_reward", "stopped_early")
    curves = _curves(stage)
    return {
        **{field: stage.results.get(field) for field in fields},
        "curves": {name: thinned(curves[name]) for name in PPO_CURVES if name in curves},
    }


def _training(stage: FinishedStage) -> dict:
    tokens, curves = stage.results.get("tokens_trained_on"), _curves(stage)
    return {
        "stage": stage.name,
        "tokens_per_step": tokens / stage.settings["steps"] if tokens and stage.settings.get("steps") else None,
        "loss": thinned(curves.get("loss", [])),
        "held_out_loss": stage.results.get("held_out_loss"),
    }


def _curves(stage: FinishedStage) -> dict[str, list[list[float]]]:
    """Every measure of the stage's metrics.jsonl as [step, value] pairs."""
    file = stage.folder / "metrics.jsonl"
    curves: dict[str, list[list[float]]] = {}
    rows: Iterable[Mapping] = read_metrics(file) if file.exists() else ()
    for row in rows:
        for name, value in row.items():
            if name != "step":
                curves.setdefault(name, []).append([row["step"], value])
    return curves
