"""The content of report.json, from the records of an experiment's stages.

A measure that a run does not have is null. Times appear under "seconds" only, so two runs of one configuration give the
same report.json apart from it.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from llama2_jax.data.records import DOMAINS
from llama2_jax.evaluation.measures import Measure, from_json
from llama2_jax.evaluation.reward_accuracy import GROUPS
from llama2_jax.models.config import ModelConfig
from llama2_jax.report.charts import dpo, ppo
from llama2_jax.report.ledger import ledger

# What an evaluation says of a version's answers under an instruction, each by turn.
INSTRUCTIONS = (
    "instruction_kept", "instruction_answers", "new_instruction_kept", "new_instruction_answers",
    "instruction_attention",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FinishedStage:
    """A finished stage and what it wrote.

    Attributes:
      name: its name.
      record: its stage.json.
      metrics: the rows of its metrics.jsonl.
      details: its evaluation.json or sweep.json.
    """

    name: str
    record: Mapping
    metrics: Sequence[Mapping] = ()
    details: Mapping = dataclasses.field(default_factory=dict)

    @property
    def results(self) -> Mapping:
        """What the stage's `run` returned."""
        return self.record.get("results") or {}

    @property
    def settings(self) -> Mapping:
        """The stage's own part of the configuration."""
        return self.record.get("config", {}).get(self.name) or {}

    @property
    def role(self) -> str:
        """What the stage is in the recipe, such as "reward_model"; "" if its configuration does not say."""
        return self.settings.get("role", "")

    @property
    def curves(self) -> dict[str, list[list[float]]]:
        """Every measure of its metrics as [step, value] pairs."""
        curves: dict[str, list[list[float]]] = {}
        for row in self.metrics:
            for name, value in row.items():
                if name != "step":
                    curves.setdefault(name, []).append([row["step"], value])
        return curves


def build_report(stages: Sequence[FinishedStage], seed: int, model: ModelConfig) -> dict:
    """Returns the content of report.json.

    Args:
      stages: in the order in which they ran; one with a role that the report does not know appears in "seconds" only.
      seed: the experiment's seed.
      model: the size of the experiment's models.
    """

    def rows(role: str, row) -> list[dict]:
        return [{"stage": stage.name, **row(stage)} for stage in stages if stage.role == role]

    evaluation = evaluation_of(stages)
    measures = evaluated_measures(stages)
    return finite({
        "seed": seed,
        "model": dataclasses.asdict(model),
        "evaluation_prompts": evaluation.get("prompts"),
        "seen_prompts": evaluation.get("seen_prompts"),
        "dialogues": evaluation.get("dialogues"),
        "seen_dialogues": evaluation.get("seen_dialogues"),
        # Of all evaluations: a model may be asked under another system message too (Koala).
        "versions": [
            _version(row, measures)
            for stage in stages
            if stage.role == "evaluation"
            for row in stage.details.get("versions", ())
        ],
        "reward_models": sorted(
            rows("reward_model", _reward_model), key=lambda row: (row["round"] or 0, row["kind"] or "")
        ),
        "reward_scaling": rows("reward_scaling", _reward_scaling),
        "reward_ablation": rows("reward_ablation", _reward_ablation),
        "reward_quality": evaluation.get("reward_quality") or {},
        "safety_scaling": [_safety_scaling(stage, evaluation) for stage in stages if stage.role == "safety_scaling"],
        "head_to_head": [row for stage in stages if stage.role == "head_to_head" for row in stage.results["pairs"]],
        "head_to_head_agreement": [
            row for stage in stages if stage.role == "head_to_head" for row in stage.results["agreement"]
        ],
        "diversity": [row for stage in stages if stage.role == "diversity" for row in stage.results["self_bleu"]],
        "dates": [row for stage in stages if stage.role == "dates" for row in stage.results["dates"]],
        "dates_ordinary": [row for stage in stages if stage.role == "dates" for row in stage.results["ordinary"]],
        "safety_sets": rows("safety_sets", _safety_sets),
        "tools": [row for stage in stages if stage.role == "tools" for row in stage.results["tool_use"]],
        "text_loss": [row for stage in stages if stage.role == "text_loss" for row in stage.results["text_loss"]],
        "benchmarks": [row for stage in stages if stage.role == "benchmarks" for row in stage.results["columns"]],
        "benchmark_tasks": [row for stage in stages if stage.role == "benchmarks" for row in stage.results["tasks"]],
        "benchmark_notes": [note for stage in stages if stage.role == "benchmarks" for note in stage.results["notes"]],
        "context_distillation": rows("context_distillation", _context_distillation),
        "annotations": rows("annotation", _annotation),
        "rejection_sampling": rows("rejection_sampling", _rejection_sampling),
        "ppo": rows("ppo", _ppo),
        "dpo": rows("dpo", _dpo),
        "instructions": rows("instructions", _instructions),
        "curation": rows("curation", lambda stage: {name: stage.results.get(name) for name in ("kept", "left_out")}),
        "releases": rows("release", _release),
        "perplexity": [row for stage in stages if stage.role == "perplexity" for row in stage.results["perplexity"]],
        "checkpoint_choices": rows("checkpoint_choice", lambda stage: dict(stage.results)),
        "training": [
            _training(stage)
            for stage in stages
            if stage.role in ("pretraining", "finetuning") and stage.curves.get("loss")
        ],
        "seconds": {stage.name: stage.record.get("seconds") for stage in stages},
        "ledger": ledger([stage.record for stage in stages]),
    })  # fmt: skip


def evaluation_of(stages: Sequence[FinishedStage]) -> Mapping:
    """Returns the content of the first evaluation's evaluation.json; empty if there is no evaluation."""
    return next((stage.details for stage in stages if stage.role == "evaluation"), {})


def evaluated_measures(stages: Sequence[FinishedStage]) -> tuple[Measure, ...]:
    """Returns the declarations of the measures that the evaluation reported."""
    return from_json(evaluation_of(stages).get("measures", ()))


def finite(tree: object) -> object:
    """Returns a JSON tree with None for every number that is not finite, as JSON has no NaN."""
    if isinstance(tree, Mapping):
        return {name: finite(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def thinned(points: Sequence[list[float]], limit: int = 400) -> list[list[float]]:
    """Returns at most `limit` points of a curve, evenly spaced, including the first and the last."""
    if len(points) <= limit:
        return list(points)
    return [points[round(index * (len(points) - 1) / (limit - 1))] for index in range(limit)]


def _version(row: Mapping, measures: Sequence[Measure]) -> dict:
    return {
        "name": row["name"],
        **{key: row.get(key) for measure in measures for key in measure.keys},
        **{field: row.get(field) or {} for field in INSTRUCTIONS},
        "categories": row.get("categories") or {},
        "safety_summary": row.get("safety_summary") or {},
        "judged": row.get("judged") or {},
        "notes": row.get("notes") or [],
        "reward_changes": row.get("reward_changes"),
    }


def _reward_model(stage: FinishedStage) -> dict:
    def table(name: str) -> dict:
        found = stage.results.get(name) or {}
        # Always the two domains; then any human comparisons from files that the run was tested on.
        domains = (*DOMAINS, *(domain for domain in found if domain not in DOMAINS))
        return {domain: {group: (found.get(domain) or {}).get(group) for group in GROUPS} for domain in domains}

    return {
        "round": stage.results.get("round", stage.settings.get("round")),
        "kind": stage.results.get("kind", stage.settings.get("kind")),
        "comparisons": stage.results.get("comparisons"),
        "left_out": stage.results.get("left_out") or {},
        **{name: table(name) for name in ("accuracy", "standard_error", "pairs")},
        "tests": stage.results.get("tests") or {},
        "notes": stage.results.get("notes") or [],
    }


def _reward_scaling(stage: FinishedStage) -> dict:
    return {"prompt_fraction": stage.settings.get("prompt_fraction"), **_reward_model(stage)}


def _reward_ablation(stage: FinishedStage) -> dict:
    fields = ("margin", "safety_auxiliary_weight")
    return {**{field: stage.settings.get(field) for field in fields}, **_reward_model(stage)}


def _safety_scaling(stage: FinishedStage, evaluation: Mapping) -> dict:
    """Returns what a fine-tuning on a part of the safety data reached, if it is a version of the evaluation."""
    version = next((row for row in evaluation.get("versions", ()) if row["name"] == stage.name), {})
    return {
        "stage": stage.name,
        "safety_fraction": stage.settings.get("safety_fraction"),
        "safety_data": stage.results.get("safety_data") or {},
        "steps": stage.results.get("steps"),
        "summary": version.get("safety_summary") or {},
        "reward_differences": version.get("reward_differences") or {},
    }


def _safety_sets(stage: FinishedStage) -> dict:
    return {
        "groups": stage.results.get("groups") or [],
        "sets": stage.results.get("sets") or [],
        "refusal_classifier": stage.results.get("refusal_classifier"),
    }


def _context_distillation(stage: FinishedStage) -> dict:
    fields = ("prompts", "with_template", "left_out_unfinished", "kept")
    return {
        **{field: stage.results.get(field) for field in fields},
        "preprompts": stage.results.get("preprompts") or {},
    }


def _annotation(stage: FinishedStage) -> dict:
    fields = (
        "comparisons", "test_comparisons", "test_comparisons_wanted", "identical_answers_left_out",
        "ties_left_out", "chosen_unsafe_left_out", "newest_preferred", "first_preferred",
        "position_bias", "order_agreement",
    )  # fmt: skip
    return {
        "round": stage.settings.get("round"),
        **{field: stage.results.get(field) for field in fields},
        "ratings": stage.results.get("ratings") or {},
        "safety_labels": stage.results.get("safety_labels") or {},
    }


def _rejection_sampling(stage: FinishedStage) -> dict:
    sweep = stage.details
    return {
        "round": stage.settings.get("round"),
        "temperature": sweep.get("chosen"),
        "sweep": sweep.get("temperatures") or {},
        "sweep_prompts": sweep.get("sweep_prompts"),
        "temperature_rewards": sweep.get("temperature_rewards") or {},
        "needed_standard_errors": sweep.get("needed_standard_errors"),
        "best_of": sweep.get("best_of") or {},
        "prompts": sweep.get("prompts"),
        "repeated_prompts_left_out": sweep.get("repeated_prompts_left_out"),
        "prompts_without_finished_answer": sweep.get("prompts_without_finished_answer"),
        "bag": stage.results.get("bag"),
        "bag_repeats_left_out": stage.results.get("bag_repeats_left_out"),
        "bag_by_round": stage.results.get("bag_by_round") or {},
    }


def _ppo(stage: FinishedStage) -> dict:
    fields = (
        "iterations", "best_iteration", "held_out_reward_before", "held_out_reward", "held_out_gain",
        "held_out_gain_standard_error", "selection_reward_before", "selection_reward", "stopped_early",
        "over_optimisation", "held_out_general_reward_before", "held_out_general_reward", "held_out_general_change",
        "held_out_general_change_standard_error",
    )  # fmt: skip
    curves = stage.curves
    return {
        **{field: stage.results.get(field) for field in fields},
        "curves": {curve.name: thinned(curves[curve.name]) for curve in ppo.CURVES if curve.name in curves},
    }


def _dpo(stage: FinishedStage) -> dict:
    curves = stage.curves
    return {
        **{field: stage.settings.get(field) for field in ("beta", "label_smoothing")},
        **{
            field: stage.results.get(field) or {}
            for field in ("comparisons", "accuracy", "standard_error", "pairs", "held_out")
        },
        "curves": {name: thinned(curves[name]) for name in dpo.CURVES if name in curves},
    }


def _instructions(stage: FinishedStage) -> dict:
    return {
        **{field: stage.results.get(field) for field in ("tasks", "calls", "with_input")},
        "left_out": stage.results.get("left_out") or {},
        "rounds": stage.results.get("rounds") or [],
    }


def _release(stage: FinishedStage) -> dict:
    errors = stage.results.get("relative_error") or {}
    fields = {name: stage.results.get(name) for name in ("quantized", "bytes", "bytes_before")}
    return {**fields, "relative_error": max(errors.values(), default=None)}


def _training(stage: FinishedStage) -> dict:
    tokens = stage.results.get("tokens_trained_on")
    return {
        "stage": stage.name,
        "tokens_per_step": tokens / stage.settings["steps"] if tokens and stage.settings.get("steps") else None,
        "loss": thinned(stage.curves.get("loss", [])),
        "held_out": thinned(stage.curves.get("held_out_loss", [])),
        "held_out_loss": stage.results.get("held_out_loss"),
    }
