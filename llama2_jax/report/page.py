"""The report as one HTML page that needs no network: templates *.html.jinja, style report.css, charts as SVG."""

import importlib.resources
import json
from collections.abc import Mapping, Sequence

import jinja2
from markupsafe import Markup

from llama2_jax.data.records import DOMAINS
from llama2_jax.evaluation.energy import CARBON_INTENSITY, POWER_USAGE_EFFECTIVENESS
from llama2_jax.evaluation.measures import Measure, charts_of
from llama2_jax.evaluation.reward_accuracy import GROUPS
from llama2_jax.report.answers import with_chips
from llama2_jax.report.charts import (
    dates,
    diversity,
    dpo,
    instructions,
    losses,
    ppo,
    reward_models,
    reward_tests,
    rounds,
    safety,
    versions,
)
from llama2_jax.report.formatting import duration, number, percent, words
from llama2_jax.report.headlines import headlines
from llama2_jax.report.safety_sets import safety_set_tables
from llama2_jax.report.settings import differing_settings, settings_of
from llama2_jax.report.summary import summary
from llama2_jax.report.violations import violation_table, violations_by_version


def render_page(
    report: Mapping, measures: Sequence[Measure], answers: Sequence[Mapping], records: Mapping[str, Mapping]
) -> str:
    """Returns the page.

    Args:
      report: the content of report.json.
      measures: the declarations of the versions' measures.
      answers: prompts with the first and last version's answers (answers.sample_answers).
      records: stage.json of every stage, by name, in the order in which they ran.
    """
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_resource),
    )
    environment.filters |= {"percent": percent, "number": number, "duration": duration, "words": words}
    labels = versions.version_labels([version["name"] for version in report["versions"]])
    names = [label.replace("\n", " ") for label in labels]
    return environment.get_template("report.html.jinja").render(
        style=Markup(_resource("colors.css") + _resource("report.css")),
        report=report,
        measures=[one for one in measures if any(row[one.name] is not None for row in report["versions"])],
        labels=names,
        summary=summary(report["versions"], names, measures),
        # Matplotlib has escaped the texts in the charts.
        charts={name: svg and Markup(svg) for name, svg in all_charts(report, measures, labels).items()},
        version_charts=charts_of(measures),
        ppo_charts=ppo.CHARTS,
        headlines=headlines(report, measures),
        turns={
            field: instructions.measured_turns(report["versions"], field)
            for field in (instructions.KNOWN, instructions.NEW)
        },
        newest_violations=violation_table(_newest_violations(report["versions"])),
        violations=violations_by_version(report["versions"]),
        safety_set_tables=safety_set_tables,
        domains=DOMAINS,
        ratings=GROUPS,
        own_test=reward_tests.own_test,
        as_part=reward_models.as_part,
        newest_reward_models=reward_models.newest_round(report["reward_models"]),
        longest_curve=rounds.longest_curve,
        answers=[with_chips(entry) for entry in answers],
        times=times(report["seconds"]),
        power_usage_effectiveness=POWER_USAGE_EFFECTIVENESS,
        carbon_intensity=CARBON_INTENSITY,
        differences=differing_settings(report, records),
        settings={name: json.dumps(settings_of(name, record), indent=2) for name, record in records.items()},
        package_versions=next(reversed(list(records.values())), {}).get("versions", {}),
    )


def all_charts(report: Mapping, measures: Sequence[Measure], labels: Sequence[str]) -> dict[str, str | None]:
    """Returns the charts by name, each an SVG; None where there is no data."""
    return {
        **versions.measure_charts(report["versions"], measures, labels),
        "map": versions.win_rate_map(report["versions"], labels),
        **instructions.instruction_charts(report["versions"], labels),
        **dates.date_charts(report["dates"]),
        **diversity.diversity_charts(report["diversity"]),
        **safety.safety_scaling_charts(report["safety_scaling"]),
        **safety.preprompt_charts(report["context_distillation"]),
        **reward_models.reward_model_charts(report["reward_models"]),
        "reward_scaling": reward_models.scaling_chart(report["reward_scaling"]),
        **reward_tests.reward_test_charts(report["reward_models"], report["reward_quality"]),
        **rounds.annotation_charts(report["annotations"]),
        **rounds.rejection_sampling_charts(report["rejection_sampling"]),
        **ppo.ppo_charts(report["ppo"]),
        **dpo.dpo_charts(report["dpo"]),
        **losses.loss_charts(report["training"]),
    }


def _newest_violations(rows: Sequence[Mapping]) -> Mapping:
    return rows[-1]["safety_summary"].get("violations_by", {}) if rows else {}


def times(seconds: Mapping[str, float | None]) -> dict:
    """Returns the stages with their times, each also as a share of the longest, and the total."""
    known = {name: value for name, value in seconds.items() if value is not None}
    longest = max(known.values(), default=0) or 1
    rows = [{"stage": name, "seconds": value, "share": value / longest} for name, value in known.items()]
    return {"rows": rows, "total": sum(known.values())}


def _resource(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
