"""One undisturbed run of the whole recipe for all tests of this folder, which one worker runs (tests/conftest.py)."""

import shutil

import pytest

from experiments import rlhf_v5
from tests.end_to_end.whole_run import run


class CutOff(BaseException):
    """Stands for a kill: no code of the package catches it."""


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The workdir of a run that nothing disturbed; to be left as it is."""
    workdir = tmp_path_factory.mktemp("finished")
    run(workdir)
    return workdir


@pytest.fixture
def begun(finished, tmp_path):
    """A copy of the finished run that ends before a stage."""

    def copy(stage):
        for name in rlhf_v5.get_config().stages:
            if name == stage:
                return tmp_path
            shutil.copytree(finished / name, tmp_path / name)
        raise AssertionError(f"no stage {stage}")

    return copy


@pytest.fixture
def cut_off(monkeypatch):
    """Runs stages and kills them in a function's nth call: before it does anything, or when it has done its work."""

    def cut(workdir, until, owner, name, call, after=False):
        original, calls = getattr(owner, name), []

        def wrapper(*arguments, **options):
            calls.append(None)
            if len(calls) == call and not after:
                raise CutOff
            result = original(*arguments, **options)
            if len(calls) == call:
                raise CutOff
            return result

        with monkeypatch.context() as patched:
            patched.setattr(owner, name, wrapper)
            with pytest.raises(CutOff):
                run(workdir, until)

    return cut
