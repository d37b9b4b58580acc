"""A made-up run: the folders that an experiment's stages would leave, for tests of the report."""

from etils import epath

from llama2_jax.data.records import DOMAINS, RATINGS
from llama2_jax.evaluation.measures import MEASURES, to_json
from llama2_jax.evaluation.preprompt_gains import PrepromptAnswer, preprompt_gains
from llama2_jax.evaluation.reward_quality import reward_quality
from llama2_jax.evaluation.reward_test import ScoredComparisons, reward_test, unsafe_test
from llama2_jax.evaluation.safety_summary import safety_summary
from llama2_jax.pipeline.stage_files import write_json, write_jsonl


def write_stage(workdir, name, role, results, *, settings=None, inputs=(), seconds=1.0, metrics=(), files=None):
    """Writes a finished stage's folder."""
    folder = workdir / name
    folder.mkdir(parents=True)
    settings = {"run": "somewhere", "role": role, **(settings or {})}
    record = {
        "stage": name,
        "fingerprint": "f",
        "config": {"seed": 3, "model": {}, "data": {"root": ""}, name: settings},
        "inputs": {f"role{index}/{source}": "f" for index, source in enumerate(inputs)},
        "results": results,
        "seconds": seconds,
        "devices": {"kind": "NVIDIA H100 80GB HBM3", "count": 8, "processes": 1},
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
        "content": 0.6 - 0.1 * share,
        "right": 0.3,
        "style": 0.2 + 0.7 * share,
        "safety": 0.5 + 0.4 * share,
        "violation_rate": 0.5 - 0.4 * share,
        "false_refusal_rate": 0.02 + 0.02 * share,
        "borderline_refusal_rate": 0.2 - 0.1 * share,
        "win_rate_vs_sft": 0.5 + 0.4 * share if place else None,
        "helpfulness_win_rate_vs_sft": 0.5 + 0.45 * share if place else None,
        "safety_win_rate_vs_sft": 0.5 + 0.3 * share if place else None,
        "win_rate_standard_error": 0.02 if place else None,
        "win_rate_vs_previous": 0.6 if place else None,
        "win_rate_vs_previous_standard_error": 0.03 if place else None,
        **under_instructions(share),
        "categories": {
            "fact": {
                "prompts": 2,
                "helpfulness": 0.2 + 0.5 * share,
                "content": 0.75,
                "right": 0.5,
                "style": 0.125,
                "violation_rate": None,
                "false_refusal_rate": 0.0,
            },
            "harm": {
                "prompts": 1,
                **dict.fromkeys(("helpfulness", "content", "right", "style", "false_refusal_rate")),
                "violation_rate": 0.5 - 0.25 * share,
            },
        },
        "safety_summary": summary_of_safety(violations=3 - round(2 * share)),
        "judged": {"helpfulness": 4, "safety": 1},
        "notes": [],
        "reward_helpfulness": -0.5 + 2 * share,
        "reward_safety": 0.25 + share,
        "reward_general": 0.5 - share,
        "reward_general_standard_error": 0.05,
        "reward_changes": changes(over_optimised=place == last) if place else None,
        "answer_tokens": 20.5,
        "seen_helpfulness": 0.5 + 0.5 * share,
        "seen_content": 0.75,
        "seen_right": 0.4,
        "seen_style": 0.25 + 0.5 * share,
        "seen_violation_rate": 0.4 - 0.3 * share,
        "seen_false_refusal_rate": 0.01,
        "seen_win_rate_vs_sft": 0.5 + 0.35 * share if place else None,
    }


def under_instructions(share):
    """Known instructions and new ones, kept until turn 6 by the last version; no dialogue has twenty turns."""
    return {
        "instruction_kept": {"2": 0.5 + 0.5 * share, "4": 0.1 + 0.9 * share, "6": 0.8 * share, "20": None},
        "instruction_answers": {"2": 12, "4": 11, "6": 10, "20": 0},
        "new_instruction_kept": {"2": 0.25 + 0.5 * share, "4": 0.6 * share, "6": None, "20": None},
        "new_instruction_answers": {"2": 8, "4": 7, "6": 0, "20": 0},
        "instruction_attention": {"2": 0.5, "4": 0.25 + 0.2 * share, "6": 0.1 + 0.3 * share, "20": None},
    }


def changes(*, over_optimised):
    """How both rewards changed since the version before, as the evaluation writes it."""
    return {
        "prompts": 4,
        "optimised": 0.25,
        "optimised_standard_error": 0.02,
        "general": -0.375,
        "general_standard_error": 0.0625,
        "over_optimised": over_optimised,
    }


def summary_of_safety(violations):
    """Of four adversarial prompts so many violate; of the four harmless ones a borderline one is refused."""
    prompts = [
        {"safety": True, "category": category, "attack": attack}
        for category in ("illicit", "hateful")
        for attack in ("plain", "role_play")
    ]
    harmless = [{"safety": False, "category": category} for category in ("fact", "fact", "fact", "borderline")]
    verdicts = [{"violation": index < violations} for index in range(4)]
    refusals = [{"refusal": index == 3} for index in range(4)]
    rewards = [{"helpfulness": 0.5 * index, "safety": index - violations} for index in range(8)]
    return safety_summary([*prompts, *harmless], rewards, [*verdicts, *refusals])


def preprompts():
    """Templates gain more than generic preprompts, and who was safe before loses by both."""
    gains = {"template": (3.0, 2.0, 1.0, -1.0), "generic": (1.0, 0.5, 0.0, -2.0)}
    return preprompt_gains([
        PrepromptAnswer(index, "illicit" if index < 3 else "hateful", kind, True, 2 * index - 3, 2 * index - 3 + gain)
        for kind, of_kind in gains.items()
        for index, gain in enumerate(of_kind)
    ])  # fmt: skip


def answers(version):
    """Rows of answers_<version>.jsonl: five prompts of three categories, with text that must be escaped."""
    rows = [
        {
            "messages": [
                {"role": "system", "content": "Answer in <b>one</b> sentence."},
                {"role": "user", "content": f"fact {index} & more?"},
            ],
            "safety": False,
            "category": "fact",
            "response": f"<script>alert('{version} {index}')</script>",
            "seen": index == 2,
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


def reward_tests(kind):
    """A reward model's tests on its own domain: it ranks three of four pairs right, and likes the longer answer."""
    sources = {"newest": {"model": "sft"}, "earlier": {"model": "sft_public"}}
    scored = ScoredComparisons(
        records=[{"sources": sources, "preferred_version": "newest"}] * 4,
        chosen=[2.0, 1.0, 0.5, -3.0], rejected=[0.0, -2.5, 0.0, -2.0],
        chosen_length=[9, 8, 7, 4], rejected_length=[5, 8, 6, 5],
        safe=[(True, True), (True, False), (True, True), (False, False)],
    )  # fmt: skip
    found = reward_test(scored)
    return {kind: found | {"unsafe": unsafe_test(scored, 0.15, 0.89)} if kind == "safety" else found}


def quality():
    """Rewards that follow the judge's helpfulness, but not on stories; of safety it says nothing."""
    prompts = [{"safety": False, "category": name} for name in ("fact", "fact", "story", "story")]
    judged = {"sft": (0.1, 0.3, 0.2, 0.4), "rlhf_v1": (0.5, 0.25, 0.8, 0.9)}
    rewards = {"sft": (0.1, 0.3, 0.2, 0.4), "rlhf_v1": (0.5, 0.25, 0.1, 0.0)}
    return reward_quality(
        prompts,
        {name: [{"helpfulness": value, "safety": 0.0} for value in row] for name, row in rewards.items()},
        {name: [{"helpfulness": value} for value in row] for name, row in judged.items()},
    )


def write_round(workdir, number, newest):
    """Writes the stages of one round of RLHF; returns their folders."""
    name = f"rlhf_v{number}"
    folders = [write_stage(
        workdir, f"{name}_annotation", "annotation",
        {
            "comparisons": 500 + number, "test_comparisons": 150, "test_comparisons_wanted": 150,
            "identical_answers_left_out": 7, "chosen_unsafe_left_out": 3, "newest_preferred": 0.6,
            "first_preferred": 0.473,
            "ratings": dict(zip(RATINGS, (0.3 - 0.03 * number, 0.3, 0.25, 0.15 + 0.03 * number), strict=True)),
            "safety_labels": {"chosen_safe": 0.18, "both_safe": 0.47, "both_unsafe": 0.35},
        },
        settings={"round": number, "temperatures": [0.7, 1.0]}, inputs=(newest,), seconds=10.0 + number,
    )]  # fmt: skip
    for kind in DOMAINS:
        tables = [accuracy(0.9 + 0.01 * number if kind == domain else 0.8) for domain in DOMAINS]
        parts = [dict(zip(DOMAINS, part, strict=True)) for part in zip(*tables, strict=True)]
        folders.append(write_stage(
            workdir, f"{name}_{kind}_reward", "reward_model",
            {
                "kind": kind, "round": number, "comparisons": {"helpfulness": 400, "safety": 100},
                "left_out": {"test_prompts": 11, "same_tokens": 2, "same_tokens_in_test": 0},
                **dict(zip(("accuracy", "standard_error", "pairs"), parts, strict=True)),
                "tests": reward_tests(kind), "notes": [f"nothing is said of <{kind}>"],
            },
            settings={"round": number, "kind": kind}, inputs=(newest, f"{name}_annotation"), seconds=5.0,
        ))  # fmt: skip
    curve = {
        "max": [0.5 + 0.02 * n + 0.02 * number for n in range(8)], "max_standard_error": [0.015] * 8,
        "median": [0.5 + 0.02 * number] * 8, "median_standard_error": [0.025] * 8,
        "gain": [0.02 * n for n in range(8)], "gain_standard_error": [0.007] * 8,
    }  # fmt: skip
    sweep = {
        "chosen": 1.0,
        "temperatures": {str(t): {**curve, "max": [v - abs(t - 1.0) / 5 for v in curve["max"]]}
                         for t in (0.8, 1.0, 1.2)},
        "temperature_rewards": {
            str(t): {"mean": curve["max"][-1] - abs(t - 1.0) / 5, "standard_error": 0.02,
                     "minus_middle": -abs(t - 1.0) / 5, "minus_middle_standard_error": 0.0 if t == 1.0 else 0.01}
            for t in (0.8, 1.0, 1.2)
        },
        "needed_standard_errors": 2.012, "sweep_prompts": 48, "best_of": curve, "prompts": 400,
        "repeated_prompts_left_out": 3, "prompts_without_finished_answer": 2,
    }  # fmt: skip
    bag = {str(n): 100 * n for n in range(1 if number > 3 else number, number + 1)}
    folders.append(write_stage(
        workdir, f"{name}_rejection_sampling", "rejection_sampling",
        {"temperature": 1.0, "bag": sum(bag.values()), "bag_by_round": bag, "bag_repeats_left_out": 5, "steps": 10},
        settings={"round": number, "bag_size": 1500, "prompts": {"world": {"arguments": {"round": number}}}},
        inputs=("pretrain", newest, f"{name}_helpfulness_reward", f"{name}_safety_reward"), seconds=20.0,
        files={"sweep.json": sweep},
    ))  # fmt: skip
    return folders


def made_up_run(workdir, rounds=2, ppo=True, versions=None, measures=MEASURES, seconds=1.0):
    """Writes the stages of a whole run; returns the inputs that the recipe would hand to the report."""
    workdir = epath.Path(workdir)
    loss = [{"step": step, "loss": 6.0 / (1 + step / 20), "tokens_per_second": 1e4} for step in range(10, 101, 10)]
    held_out = [{"step": step, "held_out_loss": 7.0 / (1 + step / 20)} for step in (50, 100)]
    stages = [write_stage(workdir, "tokenizer", "tokenizer", {"vocab_size": 768}, seconds=seconds)]
    stages.append(write_stage(
        workdir, "pretrain", "pretraining",
        {"held_out_loss": 1.25, "tokens_trained_on": 100 * 32 * 256, "parameters": 10},
        settings={"steps": 100}, inputs=("tokenizer",), seconds=seconds, metrics=[*loss, *held_out],
    ))  # fmt: skip
    stages.append(write_stage(
        workdir, "sft", "finetuning", {"steps": 100}, inputs=("tokenizer", "pretrain"), seconds=seconds, metrics=loss
    ))  # fmt: skip
    stages.append(write_stage(
        workdir, "rlhf_v1_context_distillation", "context_distillation",
        {"prompts": 4, "with_template": 4, "left_out_unfinished": 0, "kept": 3, "preprompts": preprompts()},
        inputs=("tokenizer", "sft"), seconds=seconds,
    ))  # fmt: skip
    newest, names = "sft", ["sft"]
    for number in range(1, rounds + 1):
        stages += write_round(workdir, number, newest)
        newest = f"rlhf_v{number}_rejection_sampling"
        names.append(newest if ppo and number == rounds else f"rlhf_v{number}")
    if ppo:
        names.append(f"rlhf_v{rounds}")
        stages.append(write_ppo(workdir, f"rlhf_v{rounds}_ppo", newest, seconds))
    rows = versions or [evaluated(name, index, len(names) - 1) for index, name in enumerate(names)]
    stages.append(write_stage(
        workdir, "evaluation", "evaluation", {"versions": rows}, seconds=seconds,
        inputs=("tokenizer", f"rlhf_v{rounds}_ppo" if ppo else newest),
        files={"evaluation.json": {
            "versions": rows, "prompts": 5, "seen_prompts": 1, "dialogues": 20, "seen_dialogues": 12,
            "measures": to_json(measures), "reward_quality": quality(),
        }}
        | {f"answers_{row['name']}.jsonl": answers(row["name"]) for row in rows},
    ))  # fmt: skip
    return {"stages": tuple(stages)}


def write_ppo(workdir, name, policy, seconds):
    """Writes the stage of PPO."""
    metrics = [{"step": 0, "held_out_reward": 0.51, "held_out_general_reward": 0.3}]
    for step in range(1, 11):
        clipped = {"policy_clip_fraction": 0.1, "policy_ratio": 1.0} if step > 3 else {}
        metrics.append({"step": step, "reward": 0.5 + step / 50, "kl": step / 10, "finished": 0.9, **clipped})
    metrics.append({"step": 10, "held_out_reward": 0.78, "held_out_general_reward": -0.1})
    return write_stage(
        workdir, name, "ppo",
        {
            "iterations": 10, "best_iteration": 10, "held_out_reward_before": 0.5, "held_out_reward": 0.75,
            "held_out_gain": 0.25, "held_out_gain_standard_error": 0.05, "selection_reward_before": 0.51,
            "selection_reward": 0.78, "stopped_early": False, "over_optimisation": 10,
            "held_out_general_reward_before": 0.3125, "held_out_general_reward": -0.125,
            "held_out_general_change": -0.4375, "held_out_general_change_standard_error": 0.03125,
        },
        settings={"iterations": 10}, inputs=(policy,), seconds=seconds, metrics=metrics,
    )  # fmt: skip
