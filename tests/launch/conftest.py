"""What the tests of the launchers share: the program's real flags, and commands that stand for a cluster's own."""

import importlib
import os
import pathlib
import stat
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def check_command():
    """Checks that words are the README's command with real flags, stages and fields; gives the flags' values."""
    from absl import flags

    import llama2_jax.main  # noqa: F401  defines the flags

    kinds = {name: flags.FLAGS[name].flag_type() for name in flags.FLAGS}

    def check(words: list[str]) -> dict[str, str]:
        assert pathlib.Path(words[0]).name == "python"
        assert words[1:3] == ["-m", "llama2_jax.main"]
        values = {}
        for word in words[3:]:
            name, equals, value = word.removeprefix("--").partition("=")
            assert word.startswith("--") and name not in values, word
            if not name.startswith("config."):
                assert name in kinds, f"llama2_jax.main has no flag --{name}"
                assert bool(equals) == (kinds[name] not in ("bool", "boolean")), word
            values[name] = value
        file, _, scale = values["config"].partition(":")
        config = importlib.import_module(file.removesuffix(".py").replace("/", ".")).get_config(scale or "tiny")
        for name in values:
            part = config
            for field in name.split(".")[1:]:
                assert field in part, f"{file} has no field {name}"
                part = part[field]
        return values

    return check


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Puts Python programs into the PATH in the place of commands that are not here."""
    folder = tmp_path / "commands"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def put(name: str, program: str, where: pathlib.Path = folder) -> pathlib.Path:
        path = where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!{sys.executable} -S\n{program}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return put
