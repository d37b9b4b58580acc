"""Executes a program in the sandbox: the second process of sandbox.py's, started by sandbox_kernel.py.

Reads a line of settings and the program from stdin, and writes to stdout, which the program does not get: a line when
the program begins, then how it ended. Imports little, since it runs once for each program.
"""

import builtins
import os
import sys
import types


def main() -> None:
    header, _, program = sys.stdin.buffer.read().partition(b"\n")
    nonce, open_files, writes = header.split()
    report = _redirect(int(open_files))
    # Modules that the library does without where they are missing; they read files by native code.
    sys.modules.update(dict.fromkeys(("grp", "pwd", "readline")))
    sys.path[:] = [path for path in map(os.path.realpath, sys.path) if os.path.exists(path)]
    write, leave = os.write, os._exit
    write(report, b"started " + sys.argv[-1].encode() + b"\n")
    _install_hook(report, os.getcwd(), sys.path, int(writes))
    write(report, _run(program, nonce))
    leave(0)


def _redirect(open_files: int) -> int:
    """Gives the program nothing to read and nowhere to write; returns the descriptor of what was stdout."""
    report = os.dup2(1, 3 + int.from_bytes(os.urandom(4), "big") % (open_files - 3), inheritable=False)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.close(null)
    return report


def _install_hook(report: int, folder: str, library: list[str], writes: int) -> None:
    path = os.path.join(os.path.dirname(os.path.realpath(__file__)), "sandbox_hook.py")
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec")
    # Not imported: nothing that a program can get hold of is to lead to it.
    namespace = {"__name__": "sandbox_hook", "__builtins__": dict(vars(builtins))}
    exec(code, namespace)
    namespace["install"](report, folder, list(library), writes)


def _run(program: bytes, passed: bytes) -> bytes:
    """Returns `passed` if the program ran to its end, otherwise what ended it."""
    module = sys.modules["__main__"] = types.ModuleType("program")
    try:
        exec(compile(program.decode("utf-8", "surrogatepass"), "<program>", "exec"), module.__dict__)
    except MemoryError:
        return b"memory"
    except BaseException as error:
        return _described(error)
    return passed


def _described(error: BaseException) -> bytes:
    try:
        return f"error: {type(error).__name__}: {error}"[:200].encode("utf-8", "backslashreplace")
    except BaseException:  # such as one that the error's own __str__ raises
        return b"error: an exception that cannot be printed"


main()
