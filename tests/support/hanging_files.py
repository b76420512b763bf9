"""Files whose reads hang, as those of a file server that does not answer."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from support.processes import wait_until

__all__ = ["hanging_reads"]

READS = 16
"""Reads at once, for each of which the gateway has a thread."""


@contextmanager
def hanging_reads(path: Path, http: httpx.Client, address: str) -> Iterator[None]:
    """Reads a file by a gateway in this process, many times at once, and none ends before this does."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)  # its opening waits for a writer
    threads = [threading.Thread(target=http.get, args=[address]) for _ in range(READS)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: _count_reads() >= READS)
        yield
    finally:
        while any(thread.is_alive() for thread in threads):
            with suppress(OSError):  # none opens it at this moment
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            threads[0].join(0.05)
            threads = [thread for thread in threads if thread.is_alive()] or threads[:1]


def _count_reads() -> int:
    """Counts the threads that open or read a file of a gateway's folder."""
    found = 0
    for frame in sys._current_frames().values():
        names = set()
        at = frame
        while at is not None:
            names.add(at.f_code.co_filename)
            at = at.f_back  # type: ignore[assignment]
        found += any(name.endswith("/folder_place.py") for name in names)
    return found
