"""The exceptions by which FFmpeg, PyAV and numpy fail on an input that they did not foresee.

They are caught where the library is called. Not among them are those that mean something else there:
errors of this project, which pass through a library that reads a file; a full memory; and the operating
system's, such as a broken disk.
"""

from __future__ import annotations

import struct

from av.error import FFmpegError

__all__ = ["LIBRARY_FAILURES"]

LIBRARY_FAILURES = (
    FFmpegError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    RuntimeError,
    SystemError,
    TypeError,
    ValueError,
    struct.error,
)
"""Errors of FFmpeg, and Python's own, which its bindings raise on numbers and texts that they do not know."""
