"""Code that a video which has taken over a decoding process might run, in the place of `serve`.

`ATTACKS` maps what is tried to a function that raises OSError where it is denied. None of them does
harm where it is allowed. Run as a program it is the decoding process: `attacker.py LACKING SOCKET PID`,
where LACKING names a layer to leave out (or `nothing`, or `everything`).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import platform
import resource
import select
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

DENIED = (errno.EPERM, errno.EACCES, errno.EBADF)
"""EBADF: the descriptor is open for reading only."""
PARENT = os.getppid()
HERE = Path(tempfile.gettempdir())
SECRET = ctypes.create_string_buffer(b"not to be had")
_X86 = platform.machine() == "x86_64"
NUMBERS = {
    name: numbers[0] if _X86 else numbers[1]
    for name, numbers in {
        "ptrace": (101, 117),
        "process_vm_readv": (310, 270),
        "process_vm_writev": (311, 271),
        "clone3": (435, 435),
        "unshare": (272, 97),
        "mount": (165, 40),
        "add_key": (248, 217),
        "bpf": (321, 280),
        "perf_event_open": (298, 241),
        "userfaultfd": (323, 282),
        "io_uring_setup": (425, 425),
        "open_by_handle_at": (304, 265),
        "shmget": (29, 194),
        "inotify_init1": (294, 26),
        "prctl": (157, 167),
        "pidfd_open": (434, 434),
        "tgkill": (234, 131),
        "setsid": (112, 157),
        "landlock_create_ruleset": (444, 444),
        "ioprio_set": (251, 30),
        "get_robust_list": (274, 100),
        "openat2": (437, 437),
        "timer_create": (222, 107),
        "keyctl": (250, 219),
        "fanotify_init": (300, 262),
        "pidfd_getfd": (438, 438),
        "kcmp": (312, 272),
    }.items()
}
_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> int:
    """Makes a system call; raises OSError if it fails."""
    found = int(_libc.syscall(ctypes.c_long(NUMBERS[name]), *arguments))
    if found < 0:
        raise OSError(ctypes.get_errno(), name)
    return found


def long(value: int) -> ctypes.c_long:
    return ctypes.c_long(value)


def reach_memory(name: str) -> None:
    """Reads or writes 8 bytes of the parent at an address that no process has."""
    here = struct.pack("PL", ctypes.addressof(SECRET), 8)
    there = struct.pack("PL", 4096, 8)
    try:
        call(name, long(PARENT), here, long(1), there, long(1), long(0))
    except OSError as error:
        if error.errno != errno.EFAULT:  # permitted, but nothing is there
            raise


def attach() -> None:
    """Attaches to the parent without stopping it (PTRACE_SEIZE), until this process ends."""
    call("ptrace", long(0x4206), long(PARENT), None, None)


def start_process() -> None:
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def start_thread() -> None:
    try:
        thread = threading.Thread(target=lambda: None)
        thread.start()
    except RuntimeError as error:  # Python's name for EPERM and EAGAIN
        raise PermissionError(errno.EPERM, str(error)) from error
    thread.join()


def execute(path: str | int) -> None:
    """Executes what is no program, so that the process lives on where that is allowed."""
    try:
        os.execve(path, ["x"], {})
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise


def execute_memory() -> None:
    descriptor = os.memfd_create("program")
    os.write(descriptor, b"no program")
    execute(descriptor)


def connect(kind: int, address: Any) -> None:
    with socket.socket(kind, socket.SOCK_STREAM) as end:
        try:
            end.connect(address)
        except OSError as error:
            if error.errno not in (errno.ECONNREFUSED, errno.ENOENT):
                raise


def take_descriptor() -> None:
    handle = call("pidfd_open", long(PARENT), long(0))
    try:
        os.close(call("pidfd_getfd", long(handle), long(0), long(0)))
    finally:
        os.close(handle)


def send_file(given: int) -> None:
    target = os.memfd_create("copy")
    try:
        os.sendfile(target, given, 0, 8)
    finally:
        os.close(target)


def own_signals() -> None:
    end, other = os.pipe2(0) if hasattr(os, "pipe2") else os.pipe()
    fcntl.fcntl(end, fcntl.F_SETOWN, PARENT)
    os.close(end)
    os.close(other)


def make_attacks(facts: dict[str, Any], given: int) -> dict[str, Callable[[], object]]:
    """Returns the attacks; `given` is the descriptor of the command's input."""
    model = Path(facts["model"])
    other = facts["sibling"]
    fresh = HERE / f"attack-{os.getpid()}"

    def make_and_remove(make: Callable[[], object]) -> None:
        make()
        (os.rmdir if fresh.is_dir() and not fresh.is_symlink() else os.unlink)(fresh)

    def raise_limit() -> None:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY,) * 2)
        except ValueError as error:  # Python's name for EPERM
            raise PermissionError(errno.EPERM, str(error)) from error

    return {
        # Of the worker
        "read the worker's environment": lambda: Path(f"/proc/{PARENT}/environ").read_bytes(),
        "read the worker's memory": lambda: os.close(os.open(f"/proc/{PARENT}/mem", os.O_RDONLY)),
        "write the worker's memory": lambda: os.close(os.open(f"/proc/{PARENT}/mem", os.O_RDWR)),
        "list the worker's descriptors": lambda: os.listdir(f"/proc/{PARENT}/fd"),
        "process_vm_readv": lambda: reach_memory("process_vm_readv"),
        "process_vm_writev": lambda: reach_memory("process_vm_writev"),
        "ptrace": attach,
        "signal the worker": lambda: os.kill(PARENT, 0),
        "signal a sibling": lambda: os.kill(other, 0),
        "signal a sibling's thread": lambda: call("tgkill", long(other), long(other), long(0)),
        "own a descriptor as the worker": own_signals,
        "open a handle of the worker": lambda: os.close(call("pidfd_open", long(PARENT), long(0))),
        "limit the worker": lambda: resource.prlimit(
            PARENT, resource.RLIMIT_CORE, resource.prlimit(PARENT, resource.RLIMIT_CORE)
        ),
        "slow the worker down": lambda: os.setpriority(
            os.PRIO_PROCESS, PARENT, os.getpriority(os.PRIO_PROCESS, PARENT)
        ),
        "move the worker to other cores": lambda: os.sched_setaffinity(
            PARENT, os.sched_getaffinity(PARENT)
        ),
        "slow the worker's disk down": lambda: call("ioprio_set", long(1), long(PARENT), long(0)),
        "find the worker's locks": lambda: call(
            "get_robust_list", long(PARENT), ctypes.create_string_buffer(8), struct.pack("P", 24)
        ),
        "compare with the worker": lambda: call(
            "kcmp", long(os.getpid()), long(PARENT), long(1), long(0), long(0)
        ),
        "take a descriptor of the worker": take_descriptor,
        # Files
        "list the home folder": lambda: os.listdir(facts["home"]),
        "read /etc/passwd": lambda: Path("/etc/passwd").read_bytes(),
        "read a model file": model.read_bytes,
        "write a model file": lambda: model.open("r+b").close(),
        "cut a model file": lambda: os.truncate(model, model.stat().st_size),
        "look at a model file": lambda: os.stat(model),
        "change a model file's mode": lambda: os.chmod(model, 0o666),
        "change the input's mode": lambda: os.fchmod(given, 0o666),
        "open the input for writing": lambda: os.close(
            os.open(f"/proc/self/fd/{given}", os.O_RDWR)
        ),
        "write the input": lambda: os.pwrite(given, b"x", 0),
        "write a file in the temporary folder": lambda: make_and_remove(fresh.touch),
        "make a folder": lambda: make_and_remove(fresh.mkdir),
        "make a symbolic link": lambda: make_and_remove(lambda: fresh.symlink_to("/etc/passwd")),
        "make a hard link": lambda: make_and_remove(lambda: os.link(model, fresh)),
        "make a pipe": lambda: make_and_remove(lambda: os.mkfifo(fresh)),
        "write a file in the working folder": lambda: (Path("x").touch(), Path("x").unlink()),
        "list /proc": lambda: os.listdir("/proc"),
        "list its own descriptors": lambda: os.listdir("/proc/self/fd"),
        "read its own program": lambda: Path("/proc/self/exe").read_bytes(),
        "open by openat2": lambda: os.close(
            call("openat2", long(-100), b"/etc/passwd", bytes(24), long(24))
        ),
        "copy the input in the kernel": lambda: send_file(given),
        "watch a whole file system": lambda: os.close(call("fanotify_init", long(0), long(0))),
        "open by handle": lambda: call("open_by_handle_at", long(-1), bytes(16), long(0)),
        "watch files": lambda: os.close(call("inotify_init1", long(0))),
        # Programs and processes
        "start a process": start_process,
        "start a thread": start_thread,
        "execute a program": lambda: execute(facts["program"]),
        "execute memory": execute_memory,
        # Networks
        "connect to Redis": lambda: connect(socket.AF_INET, ("127.0.0.1", facts["port"])),
        "open a UDP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
        "open a Unix socket": lambda: connect(socket.AF_UNIX, "/nonexistent"),
        "open an abstract socket": lambda: connect(socket.AF_UNIX, "\0" + facts["abstract"]),
        "ask the kernel by netlink": lambda: socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW, 0
        ).close(),
        "make a pair of sockets": lambda: [end.close() for end in socket.socketpair()],
        # Rights and the kernel
        "become root": lambda: os.setuid(0),
        "change groups": lambda: os.setgroups([0]),
        "raise its limits": raise_limit,
        "be dumpable": lambda: call("prctl", long(4), long(1), long(0), long(0), long(0)),
        "leave its session": lambda: call("setsid"),
        "make a user namespace": lambda: call("unshare", long(0x10000000)),
        "mount": lambda: call("mount", b"none", b"/", b"no-such-system", long(0), None),
        "add a key": lambda: call("add_key", b"user", b"k", b"v", long(1), long(-2)),
        "find a keyring": lambda: call("keyctl", long(0), long(-2), long(1)),
        "set a timer": lambda: call("timer_create", long(0), None, ctypes.create_string_buffer(8)),
        "bpf": lambda: call("bpf", long(99), None, long(0)),
        "perf_event_open": lambda: call(
            "perf_event_open", bytes(128), long(0), long(-1), long(-1), long(0)
        ),
        "userfaultfd": lambda: os.close(call("userfaultfd", long(1))),
        "io_uring": lambda: call("io_uring_setup", long(1), bytes(120)),
        "share memory": lambda: call("shmget", long(0), long(4096), long(0o600)),
        "change root": lambda: os.chroot("/"),
        "ask a device": lambda: fcntl.ioctl(given, 0x5413, bytes(8)),
    }


def try_all(attacks: dict[str, Callable[[], object]]) -> dict[str, str]:
    """Returns `denied`, `allowed`, or the name of another error for each attack."""
    found = {}
    for name, attack in attacks.items():
        try:
            attack()
        except OSError as error:
            number = error.errno or 0
            is_denied = number in DENIED or (number == errno.EAGAIN and name.startswith("start"))
            found[name] = "denied" if is_denied else errno.errorcode.get(number, str(number))
        else:
            found[name] = "allowed"
    return found


def attack_instead(channel: Any, limits: Any, confinement: Any) -> None:
    """Takes the place of `serve`: tells what it reached as the message of a failure."""
    from videoqa_worker.decoding.messages import Command, Failed, Ready

    channel.send(Ready(confinement=confinement))
    body, given = channel.receive()
    Command.model_validate_json(body)
    facts = json.loads(os.pread(given, 1 << 16, 0))
    found = try_all(make_attacks(facts, given))
    channel.send(Failed(code="not_a_video", message=json.dumps(found)))
    select.select([channel._socket], [], [])


def main() -> None:
    lacking = sys.argv.pop(1)
    from videoqa_worker.decoding import child, confine, serve

    if lacking == "seccomp":
        confine.apply_seccomp = lambda: "left out"  # type: ignore[assignment]
    elif lacking == "Landlock":
        confine.apply_landlock = lambda: (0, "left out")  # type: ignore[assignment]
    elif lacking == "everything":
        confine.confine = lambda uid, on_new_user: confine.Confinement()  # type: ignore[assignment]
    serve.serve = attack_instead  # type: ignore[assignment]
    child.main(sys.argv[1:])


if __name__ == "__main__":
    main()
