"""Runs a command with limits, confined by the kernel.

    python sandbox_kernel.py RLIMIT_CPU=10:11,RLIMIT_FSIZE=1000:1000 network,files,calls <command> ...

The first process of sandbox.py's sandbox. What is set here survives `exec` and cannot be taken back by the command, in
native code neither. The arguments are limits (names of `resource`, soft and hard) and the layers to ask the kernel for;
those that it granted are put after the command's own arguments. The current folder is the only one that the command can
write to.

Imports little, since it runs once for each program: `json` alone would double the time.
"""

import os
import resource
import struct
import sys

# What the sandbox executes next.
_NEXT = [os.path.join(os.path.dirname(__file__), name) for name in ("sandbox_child.py", "sandbox_hook.py")]
_KILL_PROCESS, _ALLOW, _NOT_PERMITTED = 0x80000000, 0x7FFF0000, 0x00050001
# Landlock's rights; older versions lack the last two. Those to make devices, sockets, pipes and links are given to no
# folder.
_EXECUTE, _WRITE, _READ, _LIST, _REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_FILE, _MOVE, _TRUNCATE = (
    1 << bit for bit in (0, 1, 2, 3, 4, 5, 7, 8, 13, 14)
)
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
# Numbers on x86_64 and aarch64; aarch64 lacks the older of them.
_DENIED_CALLS = {
    "socket": (41, 198), "socketpair": (53, 199), "io_uring_setup": (425, 425),
    "clone": (56, 220), "clone3": (435, 435), "fork": (57, None), "vfork": (58, None),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "prlimit64": (302, 261), "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setattr": (314, 274),
    "sched_setparam": (142, 118), "sched_setscheduler": (144, 119), "sched_setaffinity": (203, 122),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
    "chmod": (90, None), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None), "lchown": (94, None),
    "fchownat": (260, 54),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
}  # fmt: skip


def main() -> None:
    limits, layers, *command = sys.argv[1:]
    for limit in filter(None, limits.split(",")):
        name, values = limit.split("=")
        _limit(name, [int(value) for value in values.split(":")])
    granted = _confine(layers.split(",")) if sys.platform == "linux" else []
    os.execv(command[0], [*command, ",".join(granted)])


def _limit(name: str, limits: list[int]) -> None:
    """Sets a limit, no higher than it is already; one that the platform lacks or does not enforce is left out."""
    kind = getattr(resource, name, None)
    if kind is None:
        return
    _, most = resource.getrlimit(kind)
    wanted = [limit if most == resource.RLIM_INFINITY else min(limit, most) for limit in limits]
    try:
        resource.setrlimit(kind, tuple(wanted))
    except (ValueError, OSError):
        if sys.platform == "linux":
            raise


def _confine(layers: list[str]) -> list[str]:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    # An ordinary user may set the layers up if no program that it executes can give it privileges.
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    for capability in range(64):
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP: root's privileges end with exec
    attempts = {
        "network": lambda: _leave_network(libc),
        "files": lambda: _confine_files(libc),
        "calls": lambda: _deny_calls(libc),
    }
    granted = [name for name, attempt in attempts.items() if name in layers and attempt()]
    # At the end, since a change of credentials clears it.
    libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL: nothing is left of a sandbox whose owner was killed
    return granted


def _leave_network(libc) -> bool:
    """Moves the process to a network without interfaces; a user of a namespace of its own may do so."""
    user, network, ipc = 0x10000000, 0x40000000, 0x08000000
    return libc.unshare(user | network | ipc) == 0 or libc.unshare(network | ipc) == 0


def _confine_files(libc) -> bool:
    """Leaves the process Python's own files and its folder, by Landlock (Linux 5.13)."""
    import ctypes

    create_ruleset, add_rule, restrict_self = 444, 445, 446
    version = libc.syscall(create_ruleset, None, ctypes.c_size_t(0), 1)
    mapped = _mapped_files()
    if version < 1 or not mapped:
        return False
    rights = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    # Files, TCP ports, and sockets and signals to processes outside; older kernels know fewer of the fields.
    handled = struct.pack("QQQ", rights, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    ruleset = libc.syscall(create_ruleset, handled, ctypes.c_size_t(len(handled)), 0)
    if ruleset < 0:
        return False
    folder = _READ | _LIST | _WRITE | _TRUNCATE | _MOVE | _MAKE_DIR | _MAKE_FILE | _REMOVE_DIR | _REMOVE_FILE
    executed = [os.path.realpath(sys.executable), *(name for name in mapped if os.path.basename(name).startswith("ld"))]
    allowed = [
        (os.getcwd(), folder), ("/dev/null", _READ | _WRITE), ("/etc/ld.so.cache", _READ),
        *((path, _READ | _LIST) for path in (*_NEXT, *sys.path, *map(os.path.dirname, mapped))),
        *((path, _READ | _EXECUTE) for path in executed),
    ]  # fmt: skip
    for path, given in allowed:
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        given &= rights if os.path.isdir(path) else rights & ~_LIST
        libc.syscall(add_rule, ruleset, 1, struct.pack("=Qi", given, opened), 0)
        os.close(opened)
    return libc.syscall(restrict_self, ruleset, 0) == 0


def _mapped_files() -> list[str]:
    """Returns the shared libraries in memory: another Python needs them, and the modules' lie in the same folders."""
    try:
        with open("/proc/self/maps") as file:
            names = {line.split(maxsplit=5)[-1].rstrip("\n") for line in file}
    except OSError:
        return []
    return sorted(name for name in names if name.startswith("/") and ".so" in os.path.basename(name))


def _deny_calls(libc) -> bool:
    """Denies the system calls by which a process reaches others, by seccomp; programs for other ABIs are killed."""
    import ctypes

    architecture, column = _ARCHITECTURES.get(os.uname().machine, (0, 0))
    if not architecture or sys.maxsize < 1 << 32:
        return False
    denied = [numbers[column] for numbers in _DENIED_CALLS.values() if numbers[column] is not None]
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    # Each instruction: code, how many to skip if true, if false, and the operand. Numbers from 1 << 30 are x32's.
    program = [
        (load, 0, 0, 4), (equal, 1, 0, architecture), (give, 0, 0, _KILL_PROCESS),
        (load, 0, 0, 0), (at_least, len(denied) + 1, 0, 1 << 30),
        *((equal, len(denied) - index, 0, number) for index, number in enumerate(denied)),
        (give, 0, 0, _ALLOW), (give, 0, 0, _NOT_PERMITTED),
    ]  # fmt: skip
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    given = struct.pack("@HP", len(program), ctypes.addressof(instructions))
    return libc.prctl(22, 2, given, 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


if __name__ == "__main__":
    main()
