"""Pieces: answers on their way from the engine's thread to the job's events.

The engine only leaves text here. The job's own thread collects what has come and reports it, so
a slow Redis never slows the model. It does so ten times a second at first, and less and less
often: a stream of events holds about a thousand, however long an answer takes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from videoqa.errors import Stage

__all__ = ["Pieces"]

_LEAST_S = 0.1
_SHARE = 0.05
"""Of the time since the first report, for each question: 140 events in ten minutes of one."""


class Tell(Protocol):
    def __call__(self, stage: Stage, *, question_id: str, text: str) -> None: ...


class Pieces:
    """Of one attempt of one job."""

    def __init__(
        self,
        question_ids: Sequence[str],
        tell: Tell,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._waiting: dict[str, list[str]] = {name: [] for name in question_ids}
        self._lock = threading.Lock()
        self._begun_s = self._reported_s = clock()

    def taker(self, question_id: str) -> Callable[[str], None]:
        """What the engine is to call with each piece of this answer."""

        def take(text: str) -> None:
            with self._lock:
                self._waiting[question_id].append(text)

        return take

    def due_in_s(self) -> float:
        """When to report again."""
        since_s = self._reported_s - self._begun_s
        gap_s = max(_LEAST_S, _SHARE * len(self._waiting) * since_s)
        return max(0.0, self._reported_s + gap_s - self._clock())

    def report(self) -> None:
        """Reports all that has come, question by question."""
        self._reported_s = self._clock()
        with self._lock:
            found = {name: "".join(texts) for name, texts in self._waiting.items()}
            for texts in self._waiting.values():
                texts.clear()
        for name, text in found.items():
            if text:
                self._tell("generating", question_id=name, text=text)
