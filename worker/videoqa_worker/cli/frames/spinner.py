"""The line on a terminal that says how far it is, from the second second on."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console

__all__ = ["Waiting"]

_QUIET_S = 1.0
"""What is over sooner needs no line."""


class Waiting:
    """Its methods are called about ten times a second by who fetches or decodes."""

    def __init__(
        self, console: Console, *, quiet: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._quiet = quiet or not console.is_terminal
        self._status = console.status("")
        self._shown = False
        self._clock = clock
        self._begun_s = clock()
        self._text = "connecting"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._status.stop()

    def progress(self, received_bytes: int, total_bytes: int | None) -> None:
        of = f" of {total_bytes / 1e6:.1f}" if total_bytes else ""
        self._text = f"{received_bytes / 1e6:.1f}{of} MB fetched"

    def check(self) -> None:
        """Nobody cancels but by Ctrl-C; this shows the line."""
        passed_s = self._clock() - self._begun_s
        if self._quiet or passed_s < _QUIET_S:
            return
        self._status.update(f"{self._text}, {passed_s:.0f} s")
        if not self._shown:
            self._status.start()
            self._shown = True
