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
        self._bodies = 0
        """Bodies whose next bytes are waited for."""
        self._due_s = 0.0
        """Time in which some body's bytes were waited for, up to `_due_since_s` if one's are."""
        self._due_since_s = 0.0
        self._window_begun_s = 0.0
        self._window_bytes = 0
        """Value of `_due_s`, and of `fetched_bytes`, at the beginning of the window of the least rate."""

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
        """Calls `check` and `progress`; raises SourceTimeout after the deadline, and below the least rate."""
        self._check()
        self._check_deadline()
        self._check_rate()
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

    def meter(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yields the chunks of a body as it comes, and counts its bytes and the waits for them."""
        while True:
            self._begin_wait()
            came_bytes = -1
            try:
                chunk = next(chunks, None)
                came_bytes = len(chunk or b"")
            finally:
                self._end_wait(came_bytes)
            if chunk is None:
                return
            yield chunk

    def _begin_wait(self) -> None:
        with self._lock:
            if not self._bodies:
                self._due_since_s = self._clock()
            self._bodies += 1

    def _end_wait(self, came_bytes: int) -> None:
        """Ends a wait; a negative number of bytes: it failed, and a new attempt has the whole time."""
        with self._lock:
            now_s = self._clock()
            self._due_s += now_s - self._due_since_s
            self._due_since_s = now_s
            self._bodies -= 1
            if came_bytes < 0:
                self._window_begun_s, self._window_bytes = self._due_s, self.fetched_bytes
            else:
                self.fetched_bytes += came_bytes

    def add_bytes(self, count_bytes: int) -> None:
        """Counts bytes that have come."""
        with self._lock:
            self.received_bytes += count_bytes
        self.check_size(self.received_bytes)
        self.tick()

    def count_requests(self, requests: int = 1) -> None:
        """Counts requests that were sent."""
        with self._lock:
            self.requests += requests

    def count_made(self, made_bytes: int) -> None:
        """Checks the bytes that a compressed body has made so far, in any of its layers."""
        self.check_size(made_bytes)
        self.tick()

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

    def _check_rate(self) -> None:
        """Raises SourceTimeout if too few bytes came in the last window of waiting.

        Without any byte the window is twice as long: then the connection's own time-out comes first,
        whose range is tried again alone.
        """
        least, window_s = self.config.least_bytes_per_s, self.config.read_timeout_s
        with self._lock:
            due_s = self._due_s + (self._clock() - self._due_since_s if self._bodies else 0.0)
            waited_s = due_s - self._window_begun_s
            came_bytes = self.fetched_bytes - self._window_bytes
            if waited_s < (window_s if came_bytes else 2 * window_s):
                return
            self._window_begun_s, self._window_bytes = due_s, self.fetched_bytes
        if came_bytes < least * waited_s:
            raise SourceTimeout(
                f"{self.shown_url} sent {came_bytes} bytes within {waited_s:.3g} s, expected at least {least} a "
                "second; try again, or lower the worker's VIDEOQA_SOURCE_LEAST_BYTES_PER_S"
            )

    def check_size(self, size_bytes: int) -> None:
        """Raises SourceTooLarge if a fetch of this size exceeds `max_bytes`."""
        if size_bytes > self.config.max_bytes:
            raise SourceTooLarge(
                f"{self.shown_url} needs at least {size_bytes} bytes on disk, expected at most "
                f"{self.config.max_bytes}; shrink it, or raise the worker's VIDEOQA_MAX_SOURCE_BYTES"
            )
