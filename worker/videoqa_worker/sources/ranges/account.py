"""The account of one fetch: its bytes, limits, deadline, and whether the caller still waits.

Two kinds of threads use it. The caller's thread waits, and alone calls `check` and `progress` (in
`check_caller`). The fetching threads count bytes, and learn from `tick` that the caller has left.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from videoqa.contract import redact_url
from videoqa.errors import SourceTimeout, SourceTooLarge
from videoqa_worker.frames import no_check
from videoqa_worker.settings import SourceConfig

__all__ = ["FetchAccount", "Progress", "Stopped"]

Progress = Callable[[int, int | None], None]
"""A callback that gets the bytes received so far, and the total if it is known."""


class Stopped(Exception):
    """The caller has left; ends a fetching thread and is never reported."""


class FetchAccount:
    """The account of one fetch, of any protocol; messages show URLs without credentials."""

    def __init__(
        self,
        url: str,
        config: SourceConfig,
        check: Callable[[], None] = no_check,
        progress: Progress | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url
        self.shown_url = redact_url(url)
        self.config = config
        self.received_bytes = 0
        """Bytes of the file that are on disk."""
        self.fetched_bytes = 0
        """Bytes over the network, including those fetched again."""
        self.requests = 0
        """Requests sent, redirects and retries included."""
        self.total_bytes: int | None = None
        self.waited_s = 0.0
        """Time that the caller's thread has waited for bytes."""
        self.threads: list[threading.Thread] = []
        """The threads that fetch for it."""
        self._check = check
        self._progress = progress
        self._reported_bytes = -1
        self._clock = clock
        self._deadline_s = clock() + config.deadline_s
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    # Called on the caller's thread

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the body towards the deadline; decoding between two waits is not fetching."""
        begun_s = self._clock()
        self._deadline_s = begun_s + self.config.deadline_s - self.waited_s
        try:
            yield
        finally:
            self.waited_s += self._clock() - begun_s

    def check_caller(self) -> None:
        """Calls `check` and `progress`; raises SourceTimeout after the deadline."""
        self._check()
        self._check_deadline()
        if self._progress is not None and self.received_bytes != self._reported_bytes:
            self._reported_bytes = self.received_bytes
            self._progress(self.received_bytes, self.total_bytes)

    def stop(self) -> None:
        """Has the fetching threads end at their next chunk."""
        self._stopped.set()

    def join_threads(self, timeout_s: float) -> bool:
        """Waits for the fetching threads; returns True if all have ended within the time."""
        until_s = time.monotonic() + timeout_s
        for thread in self.threads:
            thread.join(max(0.0, until_s - time.monotonic()))
        return not any(thread.is_alive() for thread in self.threads)

    # Called on fetching threads

    def tick(self) -> None:
        """Raises Stopped once the caller has left, and SourceTimeout after the deadline."""
        if self._stopped.is_set():
            raise Stopped
        self._check_deadline()

    def pause(self, seconds: float) -> None:
        """Waits before a retry; ends early when the caller leaves."""
        self._stopped.wait(min(seconds, self.remaining_s()))
        self.tick()

    def remaining_s(self) -> float:
        """Returns the time until the deadline, above zero: `tick` raises once it has passed."""
        return max(0.001, self._deadline_s - self._clock())

    def expect_total(self, total_bytes: int) -> None:
        """Notes the size of a file that is fetched completely."""
        self.check_size(total_bytes)
        self.total_bytes = total_bytes

    def add_bytes(self, count_bytes: int) -> None:
        """Counts bytes that have come."""
        with self._lock:
            self.received_bytes += count_bytes
            self.fetched_bytes += count_bytes
        self.check_size(self.received_bytes)
        self.tick()

    def count_requests(self, requests: int = 1) -> None:
        """Counts requests that were sent."""
        with self._lock:
            self.requests += requests

    def discard_bytes(self, count_bytes: int) -> None:
        """Subtracts bytes that are fetched again."""
        with self._lock:
            self.received_bytes -= count_bytes

    def _check_deadline(self) -> None:
        if self._clock() >= self._deadline_s:
            raise SourceTimeout(
                f"{self.shown_url} was not complete after {self.config.deadline_s:g} s "
                f"({self.received_bytes} bytes came); try again, or raise the worker's VIDEOQA_SOURCE_DEADLINE_S"
            )

    def check_size(self, size_bytes: int) -> None:
        """Raises SourceTooLarge if a fetch of this size exceeds `max_bytes`."""
        if size_bytes > self.config.max_bytes:
            raise SourceTooLarge(
                f"{self.shown_url} needs at least {size_bytes} bytes on disk, expected at most "
                f"{self.config.max_bytes}; shrink it, or raise the worker's VIDEOQA_MAX_SOURCE_BYTES"
            )
