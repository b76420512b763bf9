"""What a person sees of a run: a live bar on a terminal, plain lines where stderr is a file.

Knows counts and sentences only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

__all__ = ["Tally", "Watcher"]

LINE_EVERY_S = 5.0
"""Between two lines where there is no terminal."""
WINDOW_S = 30.0
"""Over which the rate is taken: a fleet grows and shrinks."""


@dataclass
class Tally:
    """Rows by what became of them."""

    total: int = 0
    done: int = 0
    """Answered since this run began."""
    skipped: int = 0
    """Answered before it."""
    failed: int = 0
    """Without a result: now, or by a run before that is not repeated."""
    seconds: float = 0.0

    @property
    def settled(self) -> int:
        return self.done + self.skipped + self.failed


class Watcher:
    """A context manager; `update` is called often, and shows seldom."""

    def __init__(
        self, *, quiet: bool = False, console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._quiet, self._clock = quiet, clock
        self._bar: Progress | None = None
        if self._console.is_terminal and not quiet:
            percent, text = "{task.percentage:>3.0f}%", "{task.description}"
            columns = (BarColumn(), TextColumn(percent), TextColumn(text))
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task("", total=None)
        self._shown_s = clock()
        self._marks: list[tuple[float, int]] = [(clock(), 0)]
        self._said = ""

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, text: str) -> None:
        """A sentence between the counts; the same one twice in a row is said once."""
        if not self._quiet and text != self._said:
            self._console.print(text, markup=False)
        self._said = text

    def update(self, tally: Tally, in_flight: int) -> None:
        now_s = self._clock()
        if now_s - self._marks[-1][0] >= 1:
            self._marks.append((now_s, tally.done))
            while now_s - self._marks[0][0] > WINDOW_S and len(self._marks) > 2:
                self._marks.pop(0)
        if self._bar is not None:
            self._bar.update(
                self._task, total=tally.total, completed=tally.settled,
                description=self._text(tally, in_flight),
            )  # fmt: skip
        elif not self._quiet and now_s - self._shown_s >= LINE_EVERY_S:
            self._shown_s = now_s
            self._console.print(self._text(tally, in_flight), markup=False)

    def _text(self, tally: Tally, in_flight: int) -> str:
        since_s, before = self._marks[0]
        rate = (tally.done - before) / max(self._clock() - since_s, 0.001)
        left = _span((tally.total - tally.settled) / rate) if rate > 0 else "unknown"
        return (
            f"{tally.done + tally.skipped}/{tally.total} done, {tally.failed} failed, "
            f"{in_flight} in flight, {rate:.1f}/s, {left} left"
        )


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
