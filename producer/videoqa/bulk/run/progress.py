"""Progress of a run on stderr: a live bar on a terminal, a line every few seconds elsewhere.

Knows counts and sentences only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from videoqa.printable import printable
from videoqa.terminal import PlainConsole

__all__ = ["ProgressReporter", "RowCounts"]

LINE_EVERY_S = 5.0
"""Pause between two lines where there is no terminal."""
WINDOW_S = 30.0
"""The rate is that of the last 30 s: a fleet grows and shrinks."""


@dataclass
class RowCounts:
    """Numbers of rows by outcome."""

    total: int = 0
    done: int = 0
    """Rows answered by this run."""
    skipped: int = 0
    """Rows answered before it."""
    failed: int = 0
    """Rows without a result: failed now, or in an earlier run and not retried."""
    left_out: int = 0
    """Rows that are not in a state that was asked for; they do not count in `total`."""
    seconds: float = 0.0
    """Duration of the run."""

    @property
    def finished(self) -> int:
        """Rows that have a line."""
        return self.done + self.skipped + self.failed


class ProgressReporter:
    """Prints counts and notes; a context manager. `update` may be called often, it prints seldom."""

    def __init__(
        self, *, quiet: bool = False, console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._console = console or PlainConsole(stderr=True)
        self._quiet, self._clock = quiet, clock
        self._bar: Progress | None = None
        if self._console.is_terminal and not quiet:
            percent, text = "{task.percentage:>3.0f}%", "{task.description}"
            columns = (BarColumn(), TextColumn(percent), TextColumn(text))
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task("", total=None)
        self._shown_s = clock()
        self._marks: list[tuple[float, int]] = [(clock(), 0)]
        self._last_note = ""

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, text: str) -> None:
        """Prints a sentence between the counts; one that repeats the last is left out."""
        if not self._quiet and text != self._last_note:
            self._console.print(printable(text), markup=False)
        self._last_note = text

    def update(self, counts: RowCounts, in_flight: int) -> None:
        """Shows the counts, if it is time to."""
        now_s = self._clock()
        if now_s - self._marks[-1][0] >= 1:
            self._marks.append((now_s, counts.done))
            while now_s - self._marks[0][0] > WINDOW_S and len(self._marks) > 2:
                self._marks.pop(0)
        if self._bar is not None:
            self._bar.update(
                self._task, total=counts.total, completed=counts.finished,
                description=self._describe(counts, in_flight),
            )  # fmt: skip
        elif not self._quiet and now_s - self._shown_s >= LINE_EVERY_S:
            self._shown_s = now_s
            self._console.print(self._describe(counts, in_flight), markup=False)

    def _describe(self, counts: RowCounts, in_flight: int) -> str:
        since_s, before = self._marks[0]
        rate = (counts.done - before) / max(self._clock() - since_s, 0.001)
        left_s = (counts.total - counts.finished) / rate if rate > 0 else None
        return (
            f"{counts.done + counts.skipped}/{counts.total} done, {counts.failed} failed, "
            f"{in_flight} in flight, {rate:.1f}/s, {_describe_time_left(left_s)}"
        )


def _describe_time_left(seconds: float | None) -> str:
    return "time left unknown" if seconds is None else f"{_format_duration(seconds)} left"


def _format_duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
