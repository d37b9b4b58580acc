"""docs/data.md: the command of the run on real data names fields that exist, and values that they take."""

import pathlib
import re
import subprocess

from experiments import rlhf_v5

ROOT = pathlib.Path(__file__).parents[2]


def arguments():
    """What a shell makes of the command."""
    page = (ROOT / "docs/data.md").read_text()
    (command,) = re.findall(r"^    (python -m llama2_jax\.main .*?)\n\n", page, re.DOTALL | re.MULTILINE)
    done = subprocess.run(["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_every_field_exists_and_takes_its_value():
    given, config = arguments(), rlhf_v5.get_config("small")
    assert given[:4] == ["python", "-m", "llama2_jax.main", "--config=experiments/rlhf_v5.py:small"]
    fields = [one.removeprefix("--config.").split("=") for one in given if one.startswith("--config.")]
    assert len(fields) == len(given) - 5, "all else are fields and --workdir"
    for path, value in fields:
        part = config
        for name in path.split(".")[:-1]:
            part = part[name]
        before = part[path.split(".")[-1]]
        assert str(before) != value, f"{path} is {value} already"
        assert isinstance(before, str) or type(before)(value) is not None, path
