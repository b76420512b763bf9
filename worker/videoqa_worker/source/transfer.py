"""The accounting of one fetch: bytes, limits, the deadline, and the caller's wish to stop."""

from __future__ import annotations

import time
from collections.abc import Callable

from videoqa.errors import SourceTimeout, SourceTooLarge
from videoqa.job import redact_url
from videoqa_worker.source.config import SourceConfig

__all__ = ["Progress", "Transfer", "no_check"]

Progress = Callable[[int, int | None], None]
"""Called with the bytes there are so far, and the total if it is known."""


def no_check() -> None:
    """The default `check`: nobody cancels."""


class Transfer:
    """Knows no protocol. Messages name the URL without credentials and query."""

    def __init__(
        self,
        url: str,
        config: SourceConfig,
        check: Callable[[], None] = no_check,
        progress: Progress | None = None,
    ) -> None:
        self.url = url
        self.shown = redact_url(url)
        self.config = config
        self.received_bytes = 0
        """Of the file as it is on disk."""
        self.fetched_bytes = 0
        """Over the network, with what had to be fetched again."""
        self.total_bytes: int | None = None
        self._check = check
        self._progress = progress
        self._deadline_s = time.monotonic() + config.deadline_s

    def tick(self) -> None:
        """Raises what `check` raises, and SourceTimeout after the deadline."""
        self._check()
        if time.monotonic() >= self._deadline_s:
            raise SourceTimeout(
                f"{self.shown} was not complete after {self.config.deadline_s:g} s "
                f"({self.received_bytes} bytes came); try again, or raise the worker's deadline_s"
            )

    def left_s(self) -> float:
        """Until the deadline, above zero; what waits longer meets `tick` next."""
        return max(0.001, self._deadline_s - time.monotonic())

    def pause(self, seconds: float) -> None:
        """Waits before another try, and still hears `check`."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            self.tick()
            time.sleep(min(left_s, 0.1))

    def expect(self, total_bytes: int) -> None:
        """The source says how large it is."""
        self._limit(total_bytes)
        self.total_bytes = total_bytes

    def add(self, count_bytes: int) -> None:
        """Bytes came."""
        self.received_bytes += count_bytes
        self.fetched_bytes += count_bytes
        self._limit(self.received_bytes)
        if self._progress is not None:
            self._progress(self.received_bytes, self.total_bytes)
        self.tick()

    def rewind(self, received_bytes: int) -> None:
        """What came after this many bytes is thrown away and fetched again."""
        self.received_bytes = received_bytes

    def _limit(self, size_bytes: int) -> None:
        if size_bytes > self.config.max_bytes:
            raise SourceTooLarge(
                f"{self.shown} has {size_bytes} bytes or more, expected at most "
                f"{self.config.max_bytes}; shrink it, or raise the worker's max_bytes"
            )
