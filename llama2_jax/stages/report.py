"""The report: what an experiment has reached, as numbers (report.json), a page (index.html) and a model card.

Reads what the earlier stages wrote and measures nothing itself. A stage's `role` in the config says where it appears.
"""

from collections.abc import Mapping, Sequence

from etils import epath
from ml_collections import ConfigDict

from llama2_jax.data.counts import Count
from llama2_jax.pipeline.runtime import Inputs, Runtime
from llama2_jax.pipeline.stage_files import as_folders, read_json, read_jsonl, write_json, write_text
from llama2_jax.report.answers import sample_answers
from llama2_jax.report.content import FinishedStage, build_report, evaluated_measures
from llama2_jax.report.model_card import check_stated, model_card
from llama2_jax.report.page import render_page
from llama2_jax.training.metrics import read_metrics


def run(config: ConfigDict, inputs: Inputs, runtime: Runtime) -> dict:
    """Writes report.json, index.html and model_card.md; returns the newest version's measures.

    The input `stages` names the folders of all earlier stages, in the order in which they ran.
    """
    folders = as_folders(inputs["stages"])
    stages = [read_stage(folder) for folder in folders]
    report = build_report(stages, runtime.experiment_seed, runtime.model)
    write_json(runtime.folder / "report.json", report)
    evaluations = [folder for folder, stage in zip(folders, stages, strict=True) if stage.role == "evaluation"]
    answers = _read_sample_answers(evaluations, report["versions"])
    records = {stage.name: stage.record for stage in stages}
    measures = evaluated_measures(stages)
    write_text(runtime.folder / "index.html", render_page(report, measures, answers, records))
    card = model_card(report, measures, records, config.get("model_card", {}))
    write_text(runtime.folder / "model_card.md", card)
    return {"page": "index.html", "newest": report["versions"][-1] if report["versions"] else None}


def check(config: ConfigDict, inputs: Mapping, count: Count) -> None:
    """Raises ValueError if the model card has no field for what the config says."""
    del inputs, count
    check_stated(config.get("model_card", {}))


def read_stage(folder: epath.Path) -> FinishedStage:
    """Returns what a finished stage wrote, as far as the report shows it."""
    metrics = folder / "metrics.jsonl"
    details = next((file for name in ("evaluation.json", "sweep.json") if (file := folder / name).exists()), None)
    return FinishedStage(
        folder.name,
        read_json(folder / "stage.json"),
        read_metrics(metrics) if metrics.exists() else (),
        read_json(details) if details else {},
    )


def _read_sample_answers(folders: Sequence[epath.Path], versions: Sequence[Mapping]) -> list[dict]:
    """Returns prompts with the first and the last version's answers, each from the evaluation that has it."""
    if not versions:
        return []
    names = [f"answers_{version['name']}.jsonl" for version in (versions[0], versions[-1])]
    files = [next((file for folder in folders if (file := folder / name).exists()), None) for name in names]
    return sample_answers(*map(read_jsonl, files)) if all(files) else []
