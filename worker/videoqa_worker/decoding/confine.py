"""A seccomp filter that denies the system calls that a decoder never makes (Linux only).

It denies new sockets (so the network), starting programs and reading other processes' memory. It
lists the denied calls and not the allowed ones, since libraries may change what they need. It
narrows what a taken-over decoder can do, which still reads the files that the worker's user can.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

__all__ = ["confine", "prctl"]

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCH_AT = 0, 4

_DENIED = {
    # The value of AUDIT_ARCH, then the numbers of: socket, execve, execveat, ptrace, process_vm_readv,
    # process_vm_writev, io_uring_setup (opens sockets too), pidfd_getfd.
    "x86_64": (0xC000003E, (41, 59, 322, 101, 310, 311, 425, 438)),
    "aarch64": (0xC00000B7, (198, 221, 281, 117, 270, 271, 425, 438)),
}
_X32 = 0x40000000
"""The x32 ABI reaches the same calls by numbers from here on."""


def confine() -> bool:
    """Denies the calls to this process; returns False where that is not possible.

    It is possible on Linux with seccomp, on the architectures above. The process and its children
    can gain no privileges either, which seccomp requires.
    """
    if sys.platform != "linux":
        return False
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    machine = os.uname().machine
    if machine not in _DENIED:
        return False
    code = _build_filter(*_DENIED[machine])
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(code))
    return prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program) == 0


def prctl(option: int, value: int, pointer: bytes | None = None) -> int:
    """Calls Linux' prctl; returns -1 if the kernel refuses."""
    call = ctypes.CDLL(None).prctl
    call.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_ulong)
    return int(call(option, value, pointer, 0, 0))


def _build_filter(architecture: int, numbers: tuple[int, ...]) -> ctypes.Array[ctypes.c_char]:
    """Assembles the filter in classic BPF (linux/filter.h): code, two jumps, operand."""
    rest = len(numbers)
    steps = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, rest + 1, 0, _X32),
        *((_EQUAL, rest - n, 0, number) for n, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    return ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
