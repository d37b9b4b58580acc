"""The table of what the paper's stages need of a TPU slice."""

import importlib

from benchmarks import scale_table
from experiments.parts.scales import SCALES

PROGRAM = {"program": "train step", "peak_bytes": 2 * 2**30, "parameter_bytes": 2**30, "optimizer_bytes": 2**29}


def row(name, **changes):
    stage = {"programs": [PROGRAM], "fits": True, "peak_bytes": 2 * 2**30, "unit": "step", "unit_seconds": 4.0,
             "unit_mfu": 0.5, **changes}  # fmt: skip
    command = " ".join(("python", *scale_table.commands()[name]))
    return {
        "command": command,
        "topology": "v5p:4x4x4",
        "devices": 64,
        "chip": {"memory_bytes": 2**36},
        "stages": [stage],
    }


def test_every_row_is_a_command_of_an_experiment_that_has_the_stage():
    commands = scale_table.commands()
    assert len(commands) == 16
    for arguments in commands.values():
        flags = dict(flag.removeprefix("--").split("=") for flag in arguments if "=" in flag)
        file, _, scale = flags["config"].partition(":")
        config = importlib.import_module(file.replace("/", ".").removesuffix(".py")).get_config(scale)
        assert scale in SCALES and flags["stages"] in config.stages
        assert not [name for name in flags if name.startswith("config.")], "a scale fits its slice as it is"


def test_the_page_shows_what_was_measured_and_says_what_does_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(scale_table, "PAGE", tmp_path / "scale.md")
    scale_table.PAGE.write_text(f"before\n\n{scale_table.BEGIN}\n\nold\n\n{scale_table.END}\n\nafter\n")
    large = {**PROGRAM, "error": "Used 80G of 64G hbm"}
    first, second, third = list(scale_table.commands())[:3]
    rows = {
        first: row(first),
        second: row(second, fits=False, programs=[large], unit_seconds=None, unit_mfu=None),
        third: {"command": "python ...", "error": ["no such slice"]},
    }
    scale_table.write(rows)
    scale_table.write(rows)
    page = scale_table.PAGE.read_text()
    assert page.startswith("before\n\n<!--") and page.endswith("-->\n\nafter\n") and "old" not in page
    assert page.count("| 1.0 | 0.5 | 2.0 | 64.0 GiB | yes | step: 4 s | 50% | train step |") == 1
    assert "| more than 64.0 | 64.0 GiB | **no** |  |  | train step |" in page and "no such slice" in page
    assert f"- {first}: `python -m llama2_jax.main --config=experiments/pretrain.py:7b --dry_run" in page
