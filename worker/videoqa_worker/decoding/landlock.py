"""A Landlock domain without any right: no path, no TCP port, no signal to others (Linux 5.13).

Written with raw system calls: the one library on PyPI is a development version, and knows nothing
of networks and signals.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from videoqa_worker.decoding.libc import syscall

__all__ = ["apply_landlock"]

_CREATE_RULESET, _RESTRICT_SELF = 444, 446
"""Numbers of the system calls, on all architectures."""
_VERSION_FLAG = 1
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""Number of rights of the file system in each ABI; later ones have as many as the last."""
_TCP_RIGHTS, _NETWORK_ABI = 0b11, 4
_SCOPES, _SCOPE_ABI = 0b11, 6
"""Abstract Unix sockets, and signals."""


def apply_landlock() -> tuple[int, str]:
    """Puts this thread into the domain; returns the kernel's ABI, or 0 and why that is not possible.

    PR_SET_NO_NEW_PRIVS must be set before.
    """
    abi = syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    if abi < 1:
        return 0, _explain(ctypes.get_errno())
    rights = (1 << _FILE_RIGHTS.get(abi, max(_FILE_RIGHTS.values()))) - 1
    attribute = struct.pack("Q", rights)
    if abi >= _NETWORK_ABI:
        attribute += struct.pack("Q", _TCP_RIGHTS)
    if abi >= _SCOPE_ABI:
        attribute += struct.pack("Q", _SCOPES)
    ruleset = syscall(_CREATE_RULESET, attribute, len(attribute), 0)
    if ruleset < 0:
        return 0, _explain(ctypes.get_errno())
    try:
        if syscall(_RESTRICT_SELF, ruleset, 0) != 0:
            return 0, _explain(ctypes.get_errno())
    finally:
        os.close(ruleset)
    return abi, ""


def _explain(number: int) -> str:
    reasons = {
        errno.ENOSYS: "this kernel does not have it (Linux 5.13 does)",
        errno.EOPNOTSUPP: "it is turned off; boot with lsm=landlock,...",
        errno.EPERM: "the container's seccomp profile forbids it",
    }
    return reasons.get(number, f"the kernel refuses it: {os.strerror(number)}")
