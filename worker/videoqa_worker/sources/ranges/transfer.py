"""The accounting of one fetch: bytes, limits, the deadline, and the caller's wish to stop.

Two kinds of threads meet here. The caller's own waits, and alone calls `check` and
`progress` (`listen`). The fetching threads count what comes and hear from `tick` that the
caller has left.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from videoqa.contract import redact_url
from videoqa.errors import SourceTimeout, SourceTooLarge
from videoqa_worker.settings import SourceConfig

__all__ = ["Progress", "Stopped", "Transfer", "no_check"]

Progress = Callable[[int, int | None], None]
"""Called with the bytes there are so far, and the total if it is known."""


def no_check() -> None:
    """The default `check`: nobody cancels."""


class Stopped(Exception):
    """The caller has left; ends a fetching thread, and nobody sees it."""


class Transfer:
    """Knows no protocol. Messages name the URL without credentials and query."""

    def __init__(
        self,
        url: str,
        config: SourceConfig,
        check: Callable[[], None] = no_check,
        progress: Progress | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url
        self.shown = redact_url(url)
        self.config = config
        self.received_bytes = 0
        """Of the file as it is on disk."""
        self.fetched_bytes = 0
        """Over the network, with what had to be fetched again."""
        self.requests = 0
        """Over the network, redirects and repeated ones included."""
        self.total_bytes: int | None = None
        self.waited_s = 0.0
        """What the caller's thread spent waiting for bytes."""
        self.threads: list[threading.Thread] = []
        """Those that fetched for it."""
        self._check = check
        self._progress = progress
        self._told_bytes = -1
        self._clock = clock
        self._deadline_s = clock() + config.deadline_s
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    # The caller's thread

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The deadline's clock runs in here only: decoding between two waits is not fetching."""
        begun_s = self._clock()
        self._deadline_s = begun_s + self.config.deadline_s - self.waited_s
        try:
            yield
        finally:
            self.waited_s += self._clock() - begun_s

    def listen(self) -> None:
        """Raises what `check` raises, and SourceTimeout after the deadline; tells progress."""
        self._check()
        self._check_deadline()
        if self._progress is not None and self.received_bytes != self._told_bytes:
            self._told_bytes = self.received_bytes
            self._progress(self.received_bytes, self.total_bytes)

    def stop(self) -> None:
        """Fetching threads end at their next chunk."""
        self._stopped.set()

    def settle(self, timeout_s: float) -> bool:
        """Whether all fetching threads have ended, given so long."""
        until_s = time.monotonic() + timeout_s
        for thread in self.threads:
            thread.join(max(0.0, until_s - time.monotonic()))
        return not any(thread.is_alive() for thread in self.threads)

    # The fetching threads

    def tick(self) -> None:
        """Raises Stopped once the caller has left, and SourceTimeout after the deadline."""
        if self._stopped.is_set():
            raise Stopped
        self._check_deadline()

    def pause(self, seconds: float) -> None:
        """Waits before another try; ends early when the caller leaves."""
        self._stopped.wait(min(seconds, self.left_s()))
        self.tick()

    def left_s(self) -> float:
        """Until the deadline, above zero; what waits longer meets `tick` next."""
        return max(0.001, self._deadline_s - self._clock())

    def expect(self, total_bytes: int) -> None:
        """The source says how large it is, and all of it will come."""
        self.limit(total_bytes)
        self.total_bytes = total_bytes

    def add(self, count_bytes: int) -> None:
        """Bytes came."""
        with self._lock:
            self.received_bytes += count_bytes
            self.fetched_bytes += count_bytes
        self.limit(self.received_bytes)
        self.tick()

    def asked(self, requests: int = 1) -> None:
        """Requests went out."""
        with self._lock:
            self.requests += requests

    def lose(self, count_bytes: int) -> None:
        """Bytes that came are thrown away, and fetched again."""
        with self._lock:
            self.received_bytes -= count_bytes

    def _check_deadline(self) -> None:
        if self._clock() >= self._deadline_s:
            raise SourceTimeout(
                f"{self.shown} was not complete after {self.config.deadline_s:g} s "
                f"({self.received_bytes} bytes came); try again, or raise the worker's deadline_s"
            )

    def limit(self, size_bytes: int) -> None:
        """Raises SourceTooLarge if so many bytes may not come here."""
        if size_bytes > self.config.max_bytes:
            raise SourceTooLarge(
                f"{self.shown} would bring {size_bytes} bytes or more here, expected at most "
                f"{self.config.max_bytes}; shrink it, or raise the worker's max_source_bytes"
            )
