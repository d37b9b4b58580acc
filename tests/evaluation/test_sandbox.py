"""Programs in the sandbox: honest ones pass, hostile ones fail and do nothing, with the kernel's help and without."""

import os
import socket
import subprocess
import sys

import pytest

from llama2_jax.evaluation import sandbox
from llama2_jax.evaluation.sandbox import Limits, kernel_layers, run_all, run_sandboxed

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there is no sandbox for Windows")

SWALLOWED = "try:\n    {}\nexcept BaseException:\n    pass"


@pytest.fixture(params=["kernel and hook", "hook"])
def layers(request, monkeypatch):
    """Both layers, and what a kernel that grants nothing leaves."""
    if request.param == "hook":
        monkeypatch.setattr(sandbox, "LAYERS", ())


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening
        with pytest.raises(BlockingIOError):  # nothing has connected
            listening.accept()


HONEST = {
    "nothing": "",
    "the library": "import abc, array, bisect, cmath, collections, copy, dataclasses, datetime, decimal, enum, "
    "fractions, functools, hashlib, heapq, inspect, io, itertools, json, math, operator, os, pathlib, pickle, random, "
    "re, statistics, string, struct, sys, tempfile, time, timeit, traceback, typing, unittest, zlib\n"
    "hashlib.sha256(b'a').hexdigest()",
    "doctests": "import doctest\ndoctest.testmod()",
    "recursion": "import sys\nsys.setrecursionlimit(20_000)\ndef count(n): return n and count(n - 1) + 1\n"
    "assert count(15_000) == 15_000",
    "big integers": "assert len(bin(3 ** 50_000)) > 70_000",
    "a dataclass": "from dataclasses import dataclass\n@dataclass\nclass A:\n    b: int\nassert A(1) == A(1)",
    "a closed input": "try:\n    input()\nexcept EOFError:\n    pass\nelse:\n    raise ValueError",
    "output": "import sys\nprint('a', file=sys.stderr)\nsys.stdout.write('b')",
    "files of its own": "import os, tempfile\nassert os.listdir() == []\nos.mkdir('a')\nopen('a/b', 'w').write('c')\n"
    "assert open('a/b').read() == 'c'\nos.rename('a/b', 'd')\nos.remove('d')\n"
    "with tempfile.NamedTemporaryFile() as file:\n    file.write(b'e')",
    "no main program": "assert __name__ != '__main__'",
    "a fixed order of sets": "assert hash('a') == " + subprocess.run(
        [sys.executable, "-c", "print(hash('a'))"], env={"PYTHONHASHSEED": "0"}, capture_output=True, text=True
    ).stdout,
}  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_honest_programs_pass(name, layers):
    assert run_sandboxed(HONEST[name]).failure == ""


@pytest.mark.parametrize(
    ("program", "failure"),
    [
        ("assert 1 == 2, 'no'", "error: AssertionError: no"),
        ("x = 1 +", "error: SyntaxError: invalid syntax"),
        ("raise KeyboardInterrupt", "error: KeyboardInterrupt"),
        ("import sys; sys.exit(0)", "error: SystemExit: 0"),
        ("import os; os._exit(0)", "error: exited with status 0 before its end"),
        ("import sys; sys.exit = print; sys.exit(0); 1 / 0", "error: ZeroDivisionError: division by zero"),
        ("class Odd(Exception):\n    __str__ = None\nraise Odd", "error: an exception that cannot be printed"),
        ("raise ValueError('x' * 1000)", "error: ValueError: xxx"),
        ("x = '\ud800'\x00", "error: "),
        ("import numpy", "error: ModuleNotFoundError: No module named 'numpy'"),
        ("import builtins\nbuiltins.BaseException = builtins.MemoryError = 1\n1 / 0", ""),
        ("import builtins\nbuiltins.exec = builtins.compile = builtins.type = builtins.str = None\n1 / 0", "error: "),
    ],
)
def test_a_failure_says_why(program, failure):
    outcome = run_sandboxed(program)
    assert not outcome.passed and outcome.failure.startswith(failure) and len(outcome.failure) <= 200


FORBIDDEN = [
    ("open('/etc/passwd')", "open '/etc/passwd'"),
    ("open(b'/etc/passwd')", "open b'/etc/passwd'"),
    ("import os; os.open('/etc/passwd', os.O_RDONLY)", "open"),
    ("import io; io.FileIO('/etc/passwd')", "open"),
    ("import pathlib; pathlib.Path('/etc/passwd').read_text()", "open"),
    ("open('../../etc/passwd')", "open"),
    ("import os; os.chdir('/')", "os.chdir"),
    ("import os; open(os.path.dirname(os.__file__) + '/../../../../etc/passwd')", "open"),
    # Opened folders, to which other paths are relative.
    ("import os; os.open(os.path.dirname(os.__file__), os.O_RDONLY)", "open"),
    ("import os; open(os.__file__, 'a')", "open"),
    ("import os; os.remove(os.__file__)", "os.remove"),
    ("import os; os.symlink('/etc/passwd', 'a'); open('a')", "os.symlink"),
    ("import os; os.link('/etc/passwd', 'a'); open('a')", "os.link"),
    ("import os; open('a', 'w'); os.rename('a', '/tmp/sandbox_test')", "os.rename"),
    ("import os; os.mkdir('/tmp/sandbox_test')", "os.mkdir"),
    ("import os; os.chmod('/tmp', 0o777)", "os.chmod"),
    ("import os; os.listdir('/')", "os.listdir"),
    ("import glob; glob.glob('/*')", "os.scandir"),
    ("import os; os.system('true')", "os.system"),
    ("import os; os.fork()", "os.fork"),
    ("import os\nwhile True: os.fork()", "os.fork"),
    ("import os; os.execv('/bin/true', ['true'])", "os.exec"),
    ("import os; os.posix_spawn('/bin/true', ['true'], {})", "os.posix_spawn"),
    ("import os; os.kill(os.getppid(), 9)", "os.kill"),
    ("import subprocess; subprocess.run(['true'])", ""),
    ("import socket", ""),
    ("import ctypes", "import '_ctypes'"),
    ("import sys; del sys.modules['pwd']; import pwd; pwd.getpwall()", "import 'pwd'"),
    ("import _posixsubprocess", "import '_posixsubprocess'"),
    ("import gc; gc.get_objects()", "gc.get_objects"),
    ("import sys; sys._current_frames()", "sys._current_frames"),
    ("import sys; sys.addaudithook(print)", "sys.addaudithook"),
    ("(lambda: 0).__code__.replace(co_consts=())", "code.__new__"),
    ("import resource; resource.setrlimit(resource.RLIMIT_CPU, (9, 9))", "import 'resource'"),
    # Native code of its own.
    (
        "from importlib.machinery import *\nopen('math.so', 'w').write('x')\n"
        "ExtensionFileLoader('math', './math.so').create_module(ModuleSpec('math', None, origin='./math.so'))",
        "import 'math'",
    ),
    # Names that say one thing and then another.
    ("class P(str):\n    def startswith(self, *_): return False\nopen(P('/etc/passwd'))", "open"),
    ("import io\nclass P:\n    def __fspath__(self): return '/etc/passwd'\nio.FileIO(P())", "open"),
    # What the hook or the child might rely on.
    ("import builtins\nbuiltins.type = builtins.any = builtins.all = lambda *_: True\nopen('/etc/passwd')", "open"),
    ("import os, sys\nos.write = os._exit = os.getcwd = lambda *_: '/etc'\nopen('/etc/passwd')", "open"),
    ("import os\nos.devnull = '/etc/passwd'\nopen('/etc/passwd')", "open"),
    ("import sys\nsys.modules['__main__'] = sys.modules['os'] = None\nopen('/etc/passwd')", "open"),
]  # fmt: skip


@pytest.mark.parametrize(("program", "what"), FORBIDDEN)
def test_what_is_forbidden_ends_a_program_though_it_catches_everything(program, what, monkeypatch):
    monkeypatch.setattr(sandbox, "LAYERS", ())
    swallowed = SWALLOWED.format(program.replace("\n", "\n    "))
    assert run_sandboxed(swallowed).failure.startswith(f"forbidden: {what}")


def test_a_program_does_not_reach_the_hook():
    frames = (
        "import sys\nframe = sys._getframe()\nwhile frame:\n"
        "    assert not {'_inside', '_HARMLESS', 'hook'} & {*frame.f_globals, *frame.f_locals}\n"
        "    frame = frame.f_back\n"
        "assert 'sandbox_hook' not in sys.modules"
    )
    assert run_sandboxed(frames).passed


def test_files_of_others_stay_as_they_are(tmp_path, layers):
    secret, new = tmp_path / "secret", tmp_path / "new"
    secret.write_text("before")
    acts = [
        f"assert open({str(secret)!r}).read() != 'before'", f"open({str(secret)!r}, 'w').write('after')",
        f"open({str(new)!r}, 'w')", f"import os; os.remove({str(secret)!r})",
        f"import os; os.truncate({str(secret)!r}, 0)", f"import os; os.mkfifo({str(new)!r})",
        f"import os; os.mknod({str(new)!r})",
    ]  # fmt: skip
    outcomes = run_all([SWALLOWED.format(act) for act in acts])
    assert [outcome.failure[:9] for outcome in outcomes] == ["forbidden"] * 5 + [""] * 2
    assert secret.read_text() == "before" and not new.exists()


def test_nothing_is_sent(server, layers):
    port = server.getsockname()[1]
    act = f"import socket; socket.create_connection(('127.0.0.1', {port}))"
    assert run_sandboxed(SWALLOWED.format(act)).failure == "forbidden: import '_socket'"


def test_the_environment_is_not_inherited(monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "1234")
    program = (
        "import os, tempfile\nassert not {*os.environ} - {'HOME', 'TMPDIR', 'PYTHONHASHSEED', 'LC_CTYPE'}, os.environ\n"
        "assert os.environ['HOME'] == tempfile.gettempdir() == os.getcwd()"
    )
    assert run_sandboxed(program).failure == ""


def test_limits_hold():
    limits = Limits(seconds=20, cpu_seconds=1, memory_bytes=200 << 20, writes=3)
    programs = {
        "while True: pass": "timeout",
        "import signal\nsignal.signal(signal.SIGXCPU, lambda *_: None)\nwhile True: pass": "error: killed by SIGKILL",
        "while True: print('x' * 100_000)": "timeout",
        "open('a', 'w').write('x' * 10_000_000)": "error: OSError: [Errno 27]",
        "files = []\nwhile True: files.append(open('/dev/null'))": "error: OSError: [Errno 24]",
        "for name in 'abcd': open(name, 'w')": "forbidden: open",
    }
    if sys.platform == "linux":
        programs |= {
            "x = bytearray(1 << 40)": "memory",
            "x = []\nwhile True: x.append(bytes(1_000_000))": "memory",
        }
    outcomes = run_all(list(programs), limits)
    for expected, outcome in zip(programs.values(), outcomes, strict=True):
        assert outcome.failure.startswith(expected)
    assert run_sandboxed("import time; time.sleep(60)", Limits(seconds=0.5)).failure == "timeout"


def test_threads_and_processes_are_none():
    starts = "import threading\nthreading.Thread(target=print).start()"
    assert not run_sandboxed(starts).passed


def test_no_folder_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    programs = ["open('a', 'w')", "import os\nos.makedirs('a/b')\nos.chmod('a', 0)", "open('a', 'w')\nwhile True: pass"]
    run_all(programs, Limits(seconds=1))
    assert list(tmp_path.iterdir()) == []


def test_outcomes_are_in_order():
    programs = [f"import time; time.sleep({delay}); raise ValueError({delay})" for delay in (0.3, 0.1, 0.2)]
    assert [outcome.failure[-3:] for outcome in run_all(programs, workers=3)] == ["0.3", "0.1", "0.2"]


def test_a_sandbox_that_does_not_start_is_no_failure_of_the_program():
    with pytest.raises(ValueError, match="open_files=2: wanted at least 16"):
        Limits(open_files=2)
    if sys.platform == "linux":
        with pytest.raises(RuntimeError, match="the sandbox did not start"):
            run_sandboxed("", Limits(memory_bytes=1 << 20))


def confined(code, folder, layers=sandbox.LAYERS):
    """What code prints that the kernel alone confines."""
    python = sandbox._command(Limits())[0]
    return subprocess.run(
        [python, "-P", "-S", sandbox._KERNEL, "", ",".join(layers), python, "-P", "-S", "-c", code],
        cwd=folder, capture_output=True, text=True, timeout=60, check=True,
    ).stdout.strip()  # fmt: skip


@pytest.fixture(scope="module")
def granted():
    return kernel_layers()


DENIED = {
    "files": [
        "open('/etc/passwd')", "open('../secret')", "open('../new', 'w')", "open(os.__file__, 'a')", "os.listdir('/')",
        "os.remove('../secret')", "os.rename('../secret', 'secret')", "os.symlink('/etc/passwd', 'a')",
        "os.mkfifo('a')", "os.execv('/bin/sh', ['sh', '-c', 'true'])",
    ],
    "calls": [
        "os.fork()", "os.posix_spawn(sys.executable, [sys.executable, '-c', ''], {})", "os.kill(os.getppid(), 0)",
        "os.chmod('../secret', 0)", "__import__('_socket').socket()", "os.sched_setaffinity(0, {0})",
    ],
}  # fmt: skip


@pytest.mark.parametrize("layer", DENIED)
def test_the_kernel_denies_by_itself(layer, granted, tmp_path):
    if layer not in granted:
        pytest.skip(f"this kernel does not grant the layer {layer!r}")
    (tmp_path / "secret").write_text("before")
    (tmp_path / "own").mkdir()
    code = "import os, sys\n" + "".join(
        f"try:\n    {act}\nexcept PermissionError:\n    print({act!r})\n" for act in DENIED[layer]
    )
    assert confined(code, tmp_path / "own", [layer]).splitlines() == DENIED[layer]
    assert {path.name for path in tmp_path.iterdir()} == {"secret", "own"}


def test_the_kernel_denies_native_code_and_leaves_python_its_own(granted, tmp_path):
    if granted != sandbox.LAYERS:
        pytest.skip("this kernel does not grant all layers")
    code = (
        "import ctypes, hashlib, decimal, os, sys\nlibc = ctypes.CDLL(None)\nlibc.fopen.restype = ctypes.c_void_p\n"
        "open('a', 'w').write('b')\nos.rename('a', 'c')\n"
        "print(libc.fopen(b'/etc/passwd', b'r'), libc.socket(2, 1, 0), libc.fork(), open('c').read(), sys.argv[-1])"
    )
    assert confined(code, tmp_path) == "None -1 -1 b network,files,calls"


def test_the_kernel_leaves_no_network(granted, tmp_path, server):
    if "network" not in granted:
        pytest.skip("this kernel does not grant the layer 'network'")
    port = server.getsockname()[1]
    code = (
        f"import socket\ntry:\n    socket.create_connection(('127.0.0.1', {port}))\nexcept OSError as error:\n"
        "    print(error.strerror)"
    )
    assert confined(code, tmp_path, ["network"]) == "Network is unreachable"
