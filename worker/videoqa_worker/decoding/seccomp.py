"""A seccomp filter that allows only the system calls that decoding makes (Linux only).

All others fail with EPERM: opening any path, sockets, processes, programs, signals to others, and
whatever future kernels bring. A process needs no path once it has its libraries: inputs come as open
descriptors, and frames go as anonymous memory.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from videoqa_worker.decoding.libc import prctl

__all__ = ["apply_seccomp"]

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# fmt: off
_CALLS = {
    # The number on x86_64 and on aarch64; None where the architecture does not have it.
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66),
    "pread64": (17, 67), "pwrite64": (18, 68), "lseek": (8, 62), "close": (3, 57), "dup": (32, 23),
    "fstat": (5, 80), "ftruncate": (77, 46), "memfd_create": (319, 279),
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "mremap": (25, 216),
    "madvise": (28, 233), "brk": (12, 214), "membarrier": (324, 283),
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72),
    "sendto": (44, 206), "recvfrom": (45, 207), "sendmsg": (46, 211), "recvmsg": (47, 212),
    "futex": (202, 98), "futex_waitv": (449, 449), "set_robust_list": (273, 99), "rseq": (334, 293),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132), "restart_syscall": (219, 128),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113),
    "clock_getres": (229, 114), "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153),
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "getcpu": (309, 168),
    "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173), "getrusage": (98, 165),
    "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "getrandom": (318, 278), "uname": (63, 160), "sysinfo": (99, 179),
    "exit": (60, 93), "exit_group": (231, 94),
}
# fmt: on
_FCNTL, _TGKILL = (72, 25), (234, 131)
_F_GETFD, _F_SETFD, _F_GETFL, _F_DUPFD_CLOEXEC, _F_ADD_SEALS, _F_GET_SEALS = (
    1,
    2,
    3,
    1030,
    1033,
    1034,
)
"""The commands of fcntl; F_SETOWN, for example, has signals sent to another process."""


def apply_seccomp() -> str | None:
    """Applies the filter to this thread; returns None, or why that is not possible here.

    PR_SET_NO_NEW_PRIVS must be set before.
    """
    machine = os.uname().machine
    if machine not in _AUDIT_ARCH:
        return f"no filter is written for {machine}"
    code = _build_filter(machine)
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(code))
    if prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program) != 0:
        return f"the kernel refuses it: {os.strerror(ctypes.get_errno())}"
    return None


def _build_filter(machine: str) -> ctypes.Array[ctypes.c_char]:
    """Assembles the filter in classic BPF (linux/filter.h): code, two jumps, operand."""
    column = list(_AUDIT_ARCH).index(machine)
    steps = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    for numbers in _CALLS.values():
        if (number := numbers[column]) is not None:
            steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    # abort() sends a signal to its own process.
    steps += _allow_argument(_TGKILL[column], 0, (os.getpid(),))
    steps += _allow_argument(
        _FCNTL[column],
        1,
        (_F_GETFD, _F_SETFD, _F_GETFL, _F_DUPFD_CLOEXEC, _F_ADD_SEALS, _F_GET_SEALS),
    )
    steps.append((_RETURN, 0, 0, _ERRNO | errno.EPERM))
    return ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))


def _allow_argument(
    number: int, argument: int, values: tuple[int, ...]
) -> list[tuple[int, int, int, int]]:
    """Allows a call if the low half of an argument, an int in C, is one of these values."""
    checks = [(_EQUAL, len(values) - n, 0, value) for n, value in enumerate(values)]
    return [
        (_EQUAL, 0, len(values) + 3, number),
        (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument),
        *checks,
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
