"""Calls of Linux's C library that Python does not have."""

from __future__ import annotations

import ctypes
import struct
from contextlib import suppress

__all__ = ["drop_capabilities", "prctl", "syscall", "trim_heap"]

_CAPABILITY_VERSION_3 = 0x20080522


def prctl(option: int, value: int, pointer: bytes | None = None) -> int:
    """Calls prctl; returns -1 if the kernel refuses, with the reason in `ctypes.get_errno`."""
    call = ctypes.CDLL(None, use_errno=True).prctl
    call.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_ulong)
    return int(call(option, value, pointer, 0, 0))


def syscall(number: int, *arguments: int | bytes | None) -> int:
    """Makes a system call that has no function; returns -1 as `prctl` does."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    return int(
        call(
            ctypes.c_long(number),
            *(
                ctypes.c_long(argument) if isinstance(argument, int) else ctypes.c_char_p(argument)
                for argument in arguments
            ),
        )
    )


def drop_capabilities() -> bool:
    """Gives up all capabilities of this thread; returns False if the kernel refuses."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    return int(ctypes.CDLL(None).capset(header, bytes(24))) == 0


def trim_heap() -> None:
    """Gives all free pages of the heap back to the system; nothing without glibc."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
