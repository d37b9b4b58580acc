"""The model card (table 52): what a run's records say of its model, in Markdown."""

import importlib.resources
from collections.abc import Iterator, Mapping, Sequence

import jinja2

from llama2_jax.evaluation.measures import Measure
from llama2_jax.models.config import ModelConfig, parameter_count
from llama2_jax.report.formatting import number, percent

NOT_STATED = "*not stated*"
# What only a person can say, and the field of the report's part of the config that says it.
STATED = ("developers", "license", "contact", "freshness")
# The roles of stages that train, the policy or what rewards it, and the fields that name what they read.
TRAINING_ROLES = (
    "pretraining", "finetuning", "rejection_sampling", "ppo", "dpo", "reward_model", "ranked_reward_model",
    "general_reward_model",
)  # fmt: skip
_DATA_FIELDS = ("sources", "prompts", "preferences", "open_preferences", "rankings")
_PACKAGES = ("python", "jax", "flax")


def model_card(
    report: Mapping, measures: Sequence[Measure], records: Mapping[str, Mapping], stated: Mapping[str, str]
) -> str:
    """Returns the model card of a run.

    Args:
      report: the content of report.json.
      measures: the declarations of the versions' measures.
      records: stage.json of every stage, by name, in the order in which they ran.
      stated: what the config says of STATED; what is empty or absent is said not to be stated.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "measure": _measured}
    template = importlib.resources.files(__package__).joinpath("model_card.md.jinja").read_text(encoding="utf-8")
    versions = report["versions"]
    names = [version["name"] for version in versions]
    unseen = [one for one in measures if one.verdict and not one.seen]
    return environment.from_string(template).render(
        report=report,
        title=_cell(names[-1] if names else next(reversed(list(records)), "a run without stages")),
        stated={name: _cell(stated.get(name) or NOT_STATED) for name in STATED},
        variations=_cell(", ".join(names) or NOT_STATED),
        parameters=parameter_count(ModelConfig(**report["model"])),
        tuning=_tuning(records),
        dates=_dates(records),
        chat=_chat(records),
        software=_software(records),
        carbon=_carbon(report["ledger"]),
        training=_training_data(records),
        tokens=_tokens(records),
        comparisons=sum(row["comparisons"] or 0 for row in report["annotations"]),
        measures=[one for one in unseen if any(row[one.name] is not None for row in versions)],
        limitations=list(_limitations(report, unseen)),
    )


def check_stated(stated: Mapping[str, str]) -> None:
    """Raises ValueError if a person says something that the card has no field for."""
    if unknown := sorted(set(stated) - set(STATED)):
        raise ValueError(f"model_card has no field {', '.join(unknown)}; it has {', '.join(STATED)}")


def _part(record: Mapping) -> Mapping:
    return record["config"].get(record["stage"], {})


def _with_role(records: Mapping[str, Mapping], *roles: str) -> list[Mapping]:
    return [record for record in records.values() if _part(record).get("role") in roles]


def _tuning(records: Mapping[str, Mapping]) -> str:
    names = {
        "finetuning": "supervised fine-tuning",
        "rejection_sampling": "rejection sampling",
        "ppo": "proximal policy optimisation",
        "dpo": "direct preference optimisation",
    }
    used = [text for role, text in names.items() if _with_role(records, role)]
    return f"tuned by {', '.join(used)}" if used else "pretrained only"


def _chat(records: Mapping[str, Mapping]) -> str:
    if _with_role(records, "finetuning"):
        # The recipe's, unless a tokenizer is for another one (text/chat_formats.py).
        formats = [_part(record).get("chat_format") or "llama2" for record in _with_role(records, "tokenizer")]
        other = [name for name in formats if name != "llama2"]
        return f"The versions answer in dialogue, in the format {other[-1] if other else '[INST] ... [/INST]'}"
    return "The model continues text; for dialogue it must be fine-tuned"


def _dates(records: Mapping[str, Mapping]) -> str:
    finished = sorted(record["finished"] for record in records.values() if record.get("finished"))
    return f"stages finished from {finished[0]} to {finished[-1]}" if finished else NOT_STATED


def _software(records: Mapping[str, Mapping]) -> str:
    versions = next((record["versions"] for record in reversed(list(records.values())) if record.get("versions")), {})
    known = [f"{name} {versions[name]}" for name in _PACKAGES if name in versions]
    return ", ".join(known) or NOT_STATED


def _carbon(ledger: Sequence[Mapping]) -> str:
    known = [row["kilograms"] for row in ledger if row["kilograms"] is not None]
    unknown = [row["kind"] for row in ledger if row["kilograms"] is None]
    parts = [f"{number(sum(known))} kg CO2eq by the paper's formula (table 2)"] if known else []
    if unknown:
        parts.append(f"not known of {', '.join(map(_cell, dict.fromkeys(unknown)))}, whose power nobody states")
    return "; ".join(parts) or NOT_STATED


def _training_data(records: Mapping[str, Mapping]) -> list[dict]:
    """The sources that stages trained on, each with the first that did, and the records that this one counted."""
    rows = {}
    for record in _with_role(records, *TRAINING_ROLES):
        part, results = _part(record), record.get("results") or {}
        counts = {**(results.get("documents") or {}), **(results.get("dialogues") or {})}
        for name, source in ((name, one) for field in _DATA_FIELDS for name, one in (part.get(field) or {}).items()):
            origin = source.get("path") or source.get("hub") or source.get("function") or NOT_STATED
            row = {
                "stage": record["stage"],
                "source": _cell(name),
                "origin": _cell(origin),
                "records": counts.get(name),
            }
            rows.setdefault((name, origin), row)
    return list(rows.values())


def _tokens(records: Mapping[str, Mapping]) -> str:
    results = [record.get("results") or {} for record in _with_role(records, "pretraining")]
    trained = sum(one.get("tokens_trained_on") or 0 for one in results)
    return f"Pretraining read {trained:,} tokens." if trained else "This run did not pretrain."


def _limitations(report: Mapping, measures: Sequence[Measure]) -> Iterator[str]:
    yield (
        "What it says cannot be predicted in advance, and may be wrong, biased or objectionable. It was tested on the "
        "prompts above alone; test it for an application before it is used there."
    )
    newest = report["versions"][-1] if report["versions"] else {}
    for one in measures:
        if one.better == "lower" and newest.get(one.name) is not None:
            yield f"{newest['name']}, {one.title}: {_measured(newest[one.name], one)} of {one.prompts} prompts."
    if (newest.get("reward_changes") or {}).get("over_optimised"):
        yield f"{newest['name']} may be over-optimised: the general reward fell while the combined reward rose."
    if not newest:
        yield "Neither its helpfulness nor its safety was measured."


def _measured(value: float | None, measure: Measure) -> str:
    return percent(value, 1) if measure.share else number(value)


def _cell(text: object) -> str:
    """A text that cannot leave its cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|")
