"""The layers that confine a decoding process, so that a video that takes it over finds nothing.

Each layer holds alone, and what the system lacks is told: the worker logs it, `videoqa doctor` shows
it. A user of its own needs a worker that runs as root; Landlock needs Linux 5.13; seccomp has a filter
for x86-64 and ARM64. The worker's memory and environment are closed to all processes of its user by
`hide_memory`.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from videoqa_worker.decoding.landlock import apply_landlock
from videoqa_worker.decoding.libc import drop_capabilities, prctl
from videoqa_worker.decoding.messages import Confinement
from videoqa_worker.decoding.seccomp import apply_seccomp

__all__ = ["confine", "hide_memory"]

ON_LINUX = sys.platform == "linux"
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_CAP_KILL, _CAP_SETGID, _CAP_SETUID = 5, 6, 7


def hide_memory() -> None:
    """Closes this process's memory, environment and descriptors to others of its user (Linux).

    Debuggers and profilers then need root (CAP_SYS_PTRACE), and there are no core dumps. The files
    of /proc/self belong to root, and most of them stay readable.
    """
    if ON_LINUX:
        prctl(_PR_SET_DUMPABLE, 0)


def confine(uid: int, on_new_user: Callable[[], None]) -> Confinement:
    """Gives up all rights that decoding does not need, in this process of one thread, for good.

    Arguments:
        uid: the user and group to become, where this process may.
        on_new_user: called afterwards, since Linux then forgets its parent-death signal.
    """
    os.environ.clear()
    if not ON_LINUX:
        return Confinement(missing=("user, Landlock and seccomp: they are Linux's",))
    os.chdir("/")
    held, missing = [], []
    reason = _become(uid)
    if reason is None:
        on_new_user()
        held.append(f"user {uid}")
    else:
        missing.append(f"user: {reason}")
    if drop_capabilities():
        held.append("no capabilities")
    else:
        missing.append("capabilities: the kernel does not take them back")
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    hide_memory()
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    abi, reason = apply_landlock()
    if abi:
        held.append(f"Landlock {abi}")
    else:
        missing.append(f"Landlock: {reason}")
    reason = apply_seccomp()
    if reason is None:
        held.append("seccomp")
    else:
        missing.append(f"seccomp: {reason}")
    return Confinement(held=tuple(held), missing=tuple(missing))


def _become(uid: int) -> str | None:
    """Becomes this user and group; returns None, or why that is not possible.

    The worker must still be able to kill the process afterwards.
    """
    if os.geteuid() != 0:
        return f"the worker runs as user {os.geteuid()}, and only root may switch"
    capabilities = _read_capabilities()
    if not all(capabilities >> needed & 1 for needed in (_CAP_KILL, _CAP_SETGID, _CAP_SETUID)):
        return "root lacks one of the capabilities KILL, SETGID and SETUID"
    try:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        return f"root may not become user {uid}: {error.strerror}"
    return None


def _read_capabilities() -> int:
    """Returns the effective capabilities of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
