"""The audit hook (PEP 578) of a sandboxed program: what is not known to be harmless ends the process.

sandbox_child.py executes this file in a namespace of its own, with builtins of its own, and keeps no reference to it: a
program that replaces builtins or changes modules does not change the hook. It ends the process rather than raise, so
that no handler of the program swallows what it did, and none gets hold of the hook by a traceback.
"""

import os
import sys
from os import _exit, getcwd, write

# Modules in native code that neither open files nor reach other processes, the network or memory at will.
_NATIVE = frozenset({
    "_abc", "_ast", "_bisect", "_blake2", "_bz2", "_codecs_cn", "_codecs_hk", "_codecs_iso2022", "_codecs_jp",
    "_codecs_kr", "_codecs_tw", "_collections", "_contextvars", "_csv", "_datetime", "_decimal", "_elementtree",
    "_functools", "_hashlib", "_heapq", "_json", "_locale", "_lsprof", "_lzma", "_md5", "_multibytecodec",
    "_opcode", "_operator", "_pickle", "_queue", "_random", "_sha1", "_sha2", "_sha256", "_sha3", "_sha512", "_sre",
    "_statistics", "_string", "_struct", "_suggestions", "_symtable", "_sysconfig", "_tokenize", "_tracemalloc",
    "_typing", "_uuid", "_zoneinfo", "array", "atexit", "binascii", "cmath", "errno", "gc", "itertools", "math",
    "pyexpat", "select", "time", "unicodedata", "zlib"
})  # fmt: skip
_HARMLESS = frozenset({
    "array.__new__", "builtins.id", "builtins.input", "builtins.input/result", "compile", "exec",
    "function.__new__", "glob.glob", "glob.glob/2", "marshal.dumps", "marshal.load", "marshal.loads",
    "object.__delattr__", "object.__getattr__", "object.__setattr__", "os.fwalk", "os.putenv", "os.unsetenv",
    "os.walk", "pathlib.Path.glob", "pathlib.Path.rglob", "pdb.Pdb", "pickle.find_class", "shutil.copyfile",
    "shutil.copymode", "shutil.copystat", "shutil.copytree", "shutil.move", "shutil.rmtree", "sys._getframe",
    "sys._getframemodulename", "sys.excepthook", "sys.setprofile", "sys.settrace", "sys.unraisablehook",
    "tempfile.mkdtemp", "tempfile.mkstemp", "time.sleep"
})  # fmt: skip
_READS = frozenset({"os.listdir", "os.scandir"})
# How many of the arguments, from the first, are paths.
_WRITES = {
    "os.chdir": 1, "os.chmod": 1, "os.mkdir": 1, "os.remove": 1, "os.rename": 2, "os.rmdir": 1, "os.truncate": 1,
    "os.utime": 1,
}  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Folders are not opened, since paths may be given relative to an open folder, of which an event says nothing.
_LIBRARY_FILES = (".py", ".pyc", ".so", ".zip")
# Functions that raise no event.
_UNAUDITED = (
    "chroot", "memfd_create", "mkfifo", "mknod", "openpty", "pidfd_open", "posix_openpt", "sched_setaffinity",
    "sched_setparam", "sched_setscheduler", "setns", "setpriority", "unshare"
)  # fmt: skip


def install(report: int, folder: str, library: list[str], writes: int) -> None:
    """Restricts this process to its folder and the standard library.

    Args:
      report: the file descriptor on which a forbidden act is reported before the process ends.
      folder: the folder in which the program may read and write, without links in its path.
      library: the folders that it may import from, likewise.
      writes: how often it may change something in its folder, each file opened for writing included.
    """
    modules = (os, sys.modules["posix"])
    for name in _UNAUDITED:
        for module in modules:
            if hasattr(module, name):
                delattr(module, name)
    builtin_modules = frozenset(sys.builtin_module_names)
    own, shared = [_parts(folder)], [_parts(path) for path in library]
    left = writes

    def change(paths: tuple) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and all(_inside(path, own) for path in paths)

    def allowed(event: str, arguments: tuple) -> bool:
        if event in _HARMLESS:
            return True
        if event == "import":
            return _may_import(arguments[0], arguments[1], builtin_modules, shared)
        if event == "open":
            path, _, flags = arguments
            if type(path) is str and path == "/dev/null":
                return True
            if flags & _WRITING:
                return change((path,))
            return _inside(path, own) or (_inside(path, shared) and path.endswith(_LIBRARY_FILES))
        if event in _READS:
            return _inside(arguments[0], own + shared)
        return event in _WRITES and change(arguments[: _WRITES[event]])

    def hook(event: str, arguments: tuple) -> None:
        try:
            if allowed(event, arguments):
                return
            given = f" {arguments[0]!r}" if arguments and type(arguments[0]) in (str, bytes) else ""
            what = f"forbidden: {event}{given}"
        except BaseException as error:
            what = f"forbidden: {event} ({type(error).__name__})"
        write(report, what[:200].encode("utf-8", "backslashreplace"))
        _exit(1)

    sys.addaudithook(hook)


def _may_import(name: str, file: str | None, builtin_modules: frozenset, library: list) -> bool:
    """Returns whether a module is not native or harmless; an event with a file is that of loading native code."""
    if type(name) is not str:
        return False
    if file is not None:
        base = name.rpartition(".")[2]
        return base in _NATIVE and _inside(file, library) and file.rpartition("/")[2].startswith(f"{base}.")
    # What is None in sys.modules is not found by import.
    absent = type(sys.modules) is dict and sys.modules.get(name, sys) is None
    return name not in builtin_modules or name in _NATIVE or absent


def _inside(path: object, folders: list) -> bool:
    """Returns whether a path lies in one of the folders; links are not followed, for a program can make none.

    Anything but a plain string or an open file could change its mind between the check and the use.
    """
    if path is None or type(path) is int:
        return True
    if type(path) is bytes:
        path = path.decode("utf-8", "surrogateescape")
    if type(path) is not str:
        return False
    parts = _parts(path if path.startswith("/") else f"{getcwd()}/{path}")
    installed = "site-packages" in parts or "dist-packages" in parts
    return ".." not in parts and not installed and any(parts[: len(folder)] == folder for folder in folders)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
