"""The start and end of a decoding process: its command line, environment, pipe and exit code."""

from __future__ import annotations

import os
import signal
import sys

__all__ = ["CHILD", "describe_exit", "make_environment", "open_lossy_pipe"]

CHILD = (sys.executable, "-P", "-m", "videoqa_worker.decoding.child")
"""The command line that starts a process, before its two arguments."""
_KEPT_PREFIXES = ("LD_", "DYLD_", "PYTHON", "TMPDIR")
"""Variables by which Python finds its libraries; the process forgets them once it is ready."""

_LARGEST_IN_HEAP_BYTES = 2 << 20
"""Size up to which pictures lie in the heap: YUV of 720p has 1.4 MB, RGB 2.8. With 8 MB, segments of 138 MB
needed more than 500 MB of address space."""
_KEPT_FREE_BYTES = 64 << 20
"""Free memory at the heap's end that a busy process keeps."""


def describe_exit(code: int | None) -> str:
    """Describes how a process ended by its exit code; None: it has not ended."""
    if code is None:
        return "it closed its socket"
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ": out of memory, perhaps" if name == "SIGKILL" else ""
    return f"it was ended by {name}{hint}"


def open_lossy_pipe() -> tuple[int, int]:
    """Opens a pipe that drops what is printed while its 64 KB are full, so that no video blocks it."""
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    os.set_blocking(theirs, False)
    return ours, theirs


def make_environment() -> dict[str, str]:
    """Returns the environment of a decoding process, without the worker's credentials."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(_KEPT_PREFIXES)}
    # NumPy imports BLAS, which is not used here: this saves a thread and 40 MB of address space
    # per core.
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    # With thresholds that move, glibc keeps the largest pictures in its heap too: 855 MB of address space
    # instead of 639 for segments of 276 MB. With low ones each picture is mapped and its pages cleared anew:
    # 2,390 page faults for a clip of 640x360, a fifth of its CPU time. An idle process trims its heap.
    heap = {
        "MALLOC_MMAP_THRESHOLD_": str(_LARGEST_IN_HEAP_BYTES),
        "MALLOC_TRIM_THRESHOLD_": str(_KEPT_FREE_BYTES),
    }
    return {**kept, **one_thread, **heap}
