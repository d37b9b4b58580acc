"""Which charts the report has, drawn from the content of report.json; a chart without data is not there."""

import re
from collections.abc import Mapping, Sequence

from llama2_jax.evaluation.reward_accuracy import RATINGS
from llama2_jax.report.plots import (
    HELPFULNESS,
    MUTED,
    POLICY,
    REFUSAL,
    SAFETY,
    VIOLATION,
    Series,
    line_chart,
    map_of_versions,
    shade,
    stacked_shares,
)

COLORS = {"helpfulness": HELPFULNESS, "safety": SAFETY}
NORMAL_95 = 1.96  # standard errors to either side of a 95% interval


def all_charts(report: Mapping, labels: Sequence[str]) -> dict[str, list[str]]:
    """The charts by name, each a list of SVG texts (several where each round has one); empty where there is no data."""
    charts = {
        **_progression(report["versions"], labels),
        **_instructions(report["versions"], labels),
        **_reward_models(report["reward_models"]),
        **_annotations(report["annotations"]),
        **_rejection_sampling(report["rejection_sampling"]),
        **_ppo(report["ppo"][-1:]),
        **_training(report["training"]),
    }
    return {name: [svg for svg in svgs if svg] for name, svgs in charts.items()}


def version_labels(names: Sequence[str]) -> list[str]:
    """The versions as the paper's figure 11 names them; a name that is none of the recipe's stays as it is."""
    return [_version_label(name, names) for name in names]


def _version_label(name: str, names: Sequence[str]) -> str:
    if name == "sft":
        return "SFT"
    found = re.fullmatch(r"rlhf_v(\d+)(_rejection_sampling)?", name)
    if not found:
        return name
    if found[2]:
        return f"V{found[1]}\nno PPO"
    return f"V{found[1]}\n+ PPO" if f"{name}_rejection_sampling" in names else f"V{found[1]}"


def _progression(versions: Sequence[Mapping], labels: Sequence[str]) -> dict[str, list[str | None]]:
    def line(label: str, field: str, color: str, **more) -> Series:
        return Series(label, color, range(len(versions)), [version[field] for version in versions], **more)

    error = [v["win_rate_standard_error"] and NORMAL_95 * v["win_rate_standard_error"] for v in versions]
    return {
        "helpfulness": [
            line_chart("helpfulness", [line("helpfulness", "helpfulness", HELPFULNESS)], ticks=labels, percent=True)
        ],
        "win_rate": [
            line_chart(
                "win_rate",
                [
                    line("helpfulness prompts", "helpfulness_win_rate_vs_sft", HELPFULNESS, dashed=True, marker="."),
                    line("safety prompts", "safety_win_rate_vs_sft", SAFETY, dashed=True, marker="."),
                    line("all prompts", "win_rate_vs_sft", POLICY, error=error),
                ],
                ticks=labels,
                percent=True,
                bottom=0.45,
                reference=(0.5, "as good as SFT"),
            )
        ],
        "harm": [
            line_chart(
                "harm",
                [
                    line("violations", "violation_rate", VIOLATION),
                    line("false refusals", "false_refusal_rate", REFUSAL),
                    line("of borderline", "borderline_refusal_rate", REFUSAL, dashed=True, marker="."),
                ],
                ticks=labels,
                percent=True,
                bottom=0.0,
            )
        ],
        "map": [
            map_of_versions(
                "map",
                labels,
                [version["helpfulness_win_rate_vs_sft"] for version in versions],
                [version["safety_win_rate_vs_sft"] for version in versions],
                "wins over SFT, helpfulness prompts",
                "wins over SFT, safety prompts",
            )
        ],
        "scores": [
            line_chart(
                "scores",
                [
                    line("helpfulness reward", "reward_helpfulness", HELPFULNESS),
                    line("safety reward", "reward_safety", SAFETY),
                ],
                ticks=labels,
                y_label="mean score (logit)",
            )
        ],
    }


def _instructions(versions: Sequence[Mapping], labels: Sequence[str]) -> dict[str, list[str | None]]:
    turns = sorted({turn for version in versions for turn in version["instruction_kept"]}, key=int)
    series = [
        Series(f"turn {turn}", shade(len(turns) - 1 - index, len(turns)), range(len(versions)),
               [version["instruction_kept"].get(turn) for version in versions])
        for index, turn in enumerate(turns)
    ]  # fmt: skip
    return {"instructions": [line_chart("instructions", series, ticks=labels, percent=True, bottom=0.0, top=1.0)]}


def _reward_models(rows: Sequence[Mapping]) -> dict[str, list[str | None]]:
    newest = [row for row in rows if row["round"] == rows[-1]["round"]]
    ticks = [name.replace("_better", "\nbetter") for name in (*RATINGS, "all")]

    def interval(values: Sequence[float | None]) -> list[float | None]:
        return [None if value is None else NORMAL_95 * value for value in values]

    def by_rating(domain: str) -> str | None:
        # A gap before "all", which does not follow the ratings.
        columns = [*enumerate(RATINGS), (len(RATINGS) - 0.5, None), (len(RATINGS), "all")]
        series = [
            Series(
                f"{row['kind']} model",
                COLORS.get(row["kind"], MUTED),
                [place + shift for place, _ in columns],
                [row["accuracy"][domain].get(name) for _, name in columns],
                interval([row["standard_error"][domain].get(name) for _, name in columns]),
            )
            for row, shift in zip(newest, _spread(len(newest)), strict=True)
        ]
        chance = (0.5, "chance")
        return line_chart(
            f"accuracy_{domain}", series, ticks=ticks, percent=True, bottom=0.4, top=1.0, reference=chance
        )

    def over_rounds(kind: str) -> list[Series]:
        own, color = [row for row in rows if row["kind"] == kind], COLORS[kind]
        places = [row["round"] for row in own]
        surest, all_pairs = ([row["accuracy"][kind][name] for row in own] for name in (RATINGS[0], "all"))
        error = interval([row["standard_error"][kind]["all"] for row in own])
        return [
            Series(f"_{kind}", color, places, surest, dashed=True, marker="."),
            Series(f"{kind} model", color, places, all_pairs, error),
        ]

    rounds = line_chart(
        "accuracy_rounds",
        [*over_rounds("helpfulness"), *over_rounds("safety")],
        x_label="round",
        percent=True,
        bottom=0.4,
        top=1.0,
        reference=(0.5, "chance"),
        whole_steps=True,
    )
    return {
        "accuracy_helpfulness": [by_rating("helpfulness")],
        "accuracy_safety": [by_rating("safety")],
        "accuracy_rounds": [rounds if len({row["round"] for row in rows}) > 1 else None],
    }


def _spread(count: int) -> list[float]:
    """Small shifts to both sides, so that intervals at the same place do not cover each other."""
    return [0.08 * (2 * index - count + 1) for index in range(count)]


def _annotations(rows: Sequence[Mapping]) -> dict[str, list[str | None]]:
    bars = [f"round {row['round']}" for row in rows]
    labels = ("chosen_safe", "both_safe", "both_unsafe")
    return {
        "ratings": [
            stacked_shares(
                "ratings",
                bars,
                {name.replace("_", " "): [row["ratings"].get(name) for row in rows] for name in RATINGS},
            )
        ],
        "safety_labels": [
            stacked_shares(
                "safety_labels",
                bars,
                {name.replace("_", " "): [row["safety_labels"].get(name) for row in rows] for name in labels},
            )
        ],
    }


def _rejection_sampling(rows: Sequence[Mapping]) -> dict[str, list[str | None]]:
    best_of, by_temperature = [], []
    for index, row in enumerate(rows):
        color = shade(index, len(rows))
        for name, dashed in (("max", False), ("median", True)):
            curve = row["best_of"].get(name) or []
            label = f"_{name}" if dashed else f"round {row['round']}"
            best_of.append(Series(label, color, range(1, len(curve) + 1), curve, dashed=dashed, marker=None))
        reached = sorted((float(t), curve["max"][-1]) for t, curve in row["sweep"].items() if curve.get("max"))
        by_temperature.append(
            Series(f"round {row['round']}", color, *(zip(*reached, strict=True) if reached else ([], [])))
        )
    rounds = sorted({number for row in rows for number in row["bag_by_round"]}, key=int)
    bags = {
        f"from round {number}": [row["bag_by_round"].get(number, 0) / max(row["bag"] or 0, 1) for row in rows]
        for number in rounds
    }
    return {
        "best_of": [line_chart("best_of", best_of, x_label="answers sampled, N", y_label="reward", whole_steps=True)],
        "temperature": [
            line_chart("temperature", by_temperature, x_label="temperature", y_label="reward of the best of all")
        ],
        "sweeps": [_sweep(row) for row in rows],
        "bags": [stacked_shares("bags", [f"round {row['round']}" for row in rows], bags) if len(rounds) > 1 else None],
    }


def _sweep(row: Mapping) -> str | None:
    temperatures = sorted(row["sweep"], key=float)
    series = [
        Series(f"T = {t}" + (" (chosen)" if row["temperature"] == float(t) else ""), shade(index, len(temperatures)),
               range(1, len(curve) + 1), curve, marker=None)
        for index, t in enumerate(temperatures)
        for curve in [row["sweep"][t].get("max") or []]
    ]  # fmt: skip
    name = f"round {row['round']}: answers sampled, N"
    return line_chart(
        f"sweep_{row['stage']}", series, x_label=name, y_label="best reward", whole_steps=True, small=True
    )


def _ppo(rows: Sequence[Mapping]) -> dict[str, list[str | None]]:
    curves = rows[0]["curves"] if rows else {}

    def line(name: str, label: str, color: str, marker: str | None = None) -> Series:
        points = curves.get(name) or []
        return Series(label, color, [step for step, _ in points], [value for _, value in points], marker=marker)

    def chart(name: str, series: Sequence[Series], **more) -> list[str | None]:
        return [line_chart(f"ppo_{name}", series, x_label="iteration", whole_steps=True, **more)]

    rewards = [line("reward", "sampled batch", POLICY), line("held_out_reward", "held-out prompts", HELPFULNESS, "o")]
    finished = [line("finished", "answers that end", SAFETY)]
    return {
        "ppo_reward": chart("reward", rewards, y_label="reward"),
        "ppo_kl": chart("kl", [line("kl", "KL", VIOLATION)], y_label="nats an answer"),
        "ppo_clip": chart("clip", [line("policy_clip_fraction", "clipped", REFUSAL)], percent=True, bottom=0.0),
        "ppo_finished": chart("finished", finished, percent=True, top=1.0),
    }


def _training(rows: Sequence[Mapping]) -> dict[str, list[str | None]]:
    pretraining = [row for row in rows if row["tokens_per_step"]]
    finetuning = [row for row in rows if not row["tokens_per_step"]]
    base = []
    for row in pretraining:
        tokens = [step * row["tokens_per_step"] / 1e6 for step, _ in row["loss"]]
        base.append(Series("training", POLICY, tokens, [loss for _, loss in row["loss"]], marker=None))
        if tokens and row["held_out_loss"] is not None:
            base.append(Series("held out, at the end", HELPFULNESS, tokens[-1:], [row["held_out_loss"]]))
    tuned = [
        Series(row["stage"].replace("_", " "), shade(index, len(finetuning)), [step for step, _ in row["loss"]],
               [loss for _, loss in row["loss"]], marker=None)
        for index, row in enumerate(finetuning)
    ]  # fmt: skip
    return {
        "pretraining_loss": [line_chart("pretraining_loss", base, x_label="million tokens", y_label="nats a token")],
        "finetuning_loss": [line_chart("finetuning_loss", tuned, x_label="step", y_label="nats an answer token")],
    }
