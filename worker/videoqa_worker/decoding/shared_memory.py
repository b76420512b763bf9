"""Frames in anonymous shared memory (memfd), freed with the last holder.

On Linux this is a memfd: the kernel frees it with its last descriptor or mapping, also after
`kill -9`, and it is not in /dev/shm, which has 64 MB in a container. The writer seals it, and the
reader checks the seals before it maps it: a file that shrinks under a mapping ends the reader with
SIGBUS, and one that changes could show other pixels at a second read. Elsewhere it is an unlinked
temporary file, which the reader copies, since it cannot be sealed.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["UnsealedError", "map_arrays", "write_arrays"]

CAN_SEAL = sys.platform == "linux"
"""True where the system has memory that can be sealed."""
_SEALS = 0
if sys.platform == "linux":
    _SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

Pixels = npt.NDArray[np.uint8]
Shape = tuple[int, int, int]

_ALIGNED_BYTES = 64
"""Size of a cache line, at which each array begins."""


class UnsealedError(Exception):
    """The memory could change or shrink while it is read, or is smaller than announced."""


def write_arrays(arrays: Iterable[Pixels]) -> int:
    """Writes the arrays one after the other, seals the memory and returns its descriptor.

    It takes one array at a time, so a caller that drops each one needs no second copy of all.

    Raises:
        OSError: there is no memory, for example.
    """
    descriptor = _create()
    try:
        at = 0
        for array in arrays:
            _write(descriptor, array.data.cast("B"), at)
            at = _align_after(at, array.nbytes)
        os.ftruncate(descriptor, at)
        if CAN_SEAL:
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def map_arrays(descriptor: int, shapes: Sequence[Shape]) -> list[Pixels]:
    """Returns the arrays, on Linux without a copy; the memory is freed with the last of them.

    A write to one of them writes to a copy of the page. Each mapping holds one descriptor.

    Raises:
        UnsealedError: the memory was not made by `write_arrays`. OSError: it cannot be mapped.
    """
    needed = 0
    for shape in shapes:
        needed = _align_after(needed, math.prod(shape))
    if os.fstat(descriptor).st_size < needed:
        raise UnsealedError(f"got shared memory smaller than the {needed} bytes of its arrays")
    memory = (_map_private if CAN_SEAL else _read_copy)(descriptor, needed)
    arrays, at = [], 0
    for shape in shapes:
        count = math.prod(shape)
        arrays.append(np.frombuffer(memory, np.uint8, count, at).reshape(shape))
        at = _align_after(at, count)
    return arrays


def _align_after(at: int, size: int) -> int:
    return at + -(-size // _ALIGNED_BYTES) * _ALIGNED_BYTES


def _write(descriptor: int, data: memoryview, at: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, at)
        data, at = data[written:], at + written


def _create() -> int:
    if CAN_SEAL:
        return os.memfd_create("frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    descriptor, name = tempfile.mkstemp(prefix="videoqa-frames-")
    os.unlink(name)
    return descriptor


def _map_private(descriptor: int, length: int) -> mmap.mmap:
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError as error:
        raise UnsealedError("got a descriptor that is no shared memory") from error
    if seals & _SEALS != _SEALS:
        raise UnsealedError(f"shared memory has seals {seals:#x}, expected {_SEALS:#x}")
    # A private mapping, since before Linux 6.7 sealed memory cannot be mapped as shared.
    return mmap.mmap(descriptor, length, access=mmap.ACCESS_COPY)


def _read_copy(descriptor: int, length: int) -> bytearray:
    content, at = bytearray(length), 0
    while at < length:
        count = os.preadv(descriptor, [memoryview(content)[at:]], at)
        if count == 0:
            raise UnsealedError(f"the shared file ended at {at} of {length} bytes")
        at += count
    return content
