"""The spool folder's quota, over all processes that share it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from videoqa.errors import SpoolFull

__all__ = ["Quota", "Reservation"]

_LOOK_EVERY_S = 1.0
"""Maximum age of the count of other processes' files, since each count reads a few folders."""


class Quota:
    """Counts this process's reservations, and the other processes' files on the disk.

    It cannot see reservations of other processes before their bytes are written, so several that
    start large downloads at once may overshoot; a full disk raises SpoolFull as well.
    """

    def __init__(
        self,
        limit_bytes: int,
        others_bytes: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._others_bytes = others_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._held_bytes = 0
        self._others_seen_bytes = 0
        self._looked_s = float("-inf")

    @contextmanager
    def reserve(self) -> Iterator[Reservation]:
        """Yields a reservation for one file, released on exit."""
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            reservation.close()

    def hold(self, more_bytes: int) -> None:
        """Reserves more bytes; raises SpoolFull, and reserves none, if they exceed the quota."""
        with self._lock:
            if self._clock() - self._looked_s >= _LOOK_EVERY_S:
                self._others_seen_bytes = self._others_bytes()
                self._looked_s = self._clock()
            used_bytes = self._held_bytes + self._others_seen_bytes
            if more_bytes > 0 and used_bytes + more_bytes > self._limit_bytes:
                raise SpoolFull(
                    f"{more_bytes} bytes more would not fit in the spool folder's quota of "
                    f"{self._limit_bytes} ({used_bytes} are in use); try again when other jobs "
                    "are done, or raise the worker's VIDEOQA_SPOOL_QUOTA_BYTES"
                )
            self._held_bytes += more_bytes


class Reservation:
    """The part of the quota that one file has reserved."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._lock = threading.Lock()
        self._held_bytes = 0
        self._closed = False

    def grow_to(self, total_bytes: int) -> None:
        """Reserves this many bytes for the file in total.

        Raises:
            SpoolFull: the quota does not allow it.
        """
        with self._lock:
            if total_bytes > self._held_bytes and not self._closed:
                self._quota.hold(total_bytes - self._held_bytes)
                self._held_bytes = total_bytes

    def close(self) -> None:
        with self._lock:
            self._quota.hold(-self._held_bytes)
            self._held_bytes = 0
            self._closed = True
