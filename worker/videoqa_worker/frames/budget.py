"""The budget of one decoding: its deadline, its packet count, and the caller's `check`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from videoqa.errors import DecodeTimeout, TooManyPackets
from videoqa_worker.frames.sparse_file import Span, Spans, SparseFile
from videoqa_worker.settings import FrameLimits

__all__ = ["DecodeBudget", "TimedFile", "no_check"]


def no_check() -> None:
    """The default `check`, for callers that never cancel."""


class DecodeBudget:
    """The budget of one decoding, checked once per packet; it cannot interrupt a packet."""

    def __init__(self, limits: FrameLimits, check: Callable[[], None] = no_check) -> None:
        self._limits = limits
        self._check = check
        self._deadline_s = time.monotonic() + limits.decode_timeout_s
        self._packets = 0

    def tick(self) -> None:
        """Counts a packet; raises DecodeTimeout, TooManyPackets, and what `check` raises."""
        self._check()
        if time.monotonic() > self._deadline_s:
            raise DecodeTimeout(
                f"decoding took more than {self._limits.decode_timeout_s:g} s; "
                "ask for a shorter clip, or raise the worker's VIDEOQA_DECODE_TIMEOUT_S"
            )
        self._packets += 1
        if self._packets > self._limits.max_packets:
            raise TooManyPackets(
                f"the video has more than {self._limits.max_packets} packets; "
                "ask for a shorter clip, or raise the worker's VIDEOQA_MAX_PACKETS"
            )

    def restart(self) -> None:
        """Starts the deadline anew, for the next segment."""
        self._deadline_s = time.monotonic() + self._limits.decode_timeout_s

    def exclude(self, seconds: float) -> None:
        """Moves the deadline by time that was not spent on decoding."""
        self._deadline_s += seconds


class TimedFile:
    """A SparseFile whose fetches do not count towards the decoding deadline."""

    def __init__(self, file: SparseFile, budget: DecodeBudget) -> None:
        self._file = file
        self._budget = budget
        self.size_bytes: int = file.size_bytes

    def open_file(self) -> int:
        return self._file.open_file()

    @property
    def present(self) -> Spans:
        return self._file.present

    def ensure(self, spans: Sequence[Span]) -> None:
        begun_s = time.monotonic()
        self._file.ensure(spans)
        self._budget.exclude(time.monotonic() - begun_s)
