"""TextStream: text of unfinished answers on its way from the engine's thread to the job's events.

The engine only leaves text here. The job's own thread collects what has come and reports it, so
a slow Redis never slows the model. It does so ten times a second at first, and less and less
often: a stream of events holds about a thousand, however long an answer takes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from videoqa_worker.job.context import Progress, Report

__all__ = ["TextStream"]

_SHORTEST_GAP_S = 0.1
_GAP_SHARE = 0.05
"""Share of the time since the start, for each question: 140 events in ten minutes of one question."""


class TextStream:
    """Text of one attempt's answers."""

    def __init__(
        self,
        question_ids: Sequence[str],
        report: Report,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._report = report
        self._clock = clock
        self._waiting: dict[str, list[str]] = {name: [] for name in question_ids}
        self._lock = threading.Lock()
        self._begun_s = self._flushed_s = clock()

    def make_listener(self, question_id: str) -> Callable[[str], None]:
        """Returns the function that the engine calls with each piece of this answer."""

        def listen(text: str) -> None:
            with self._lock:
                self._waiting[question_id].append(text)

        return listen

    def due_in_s(self) -> float:
        """Seconds until the next flush."""
        since_s = self._flushed_s - self._begun_s
        gap_s = max(_SHORTEST_GAP_S, _GAP_SHARE * len(self._waiting) * since_s)
        return max(0.0, self._flushed_s + gap_s - self._clock())

    def flush(self) -> None:
        """Reports all text that has come, question by question."""
        self._flushed_s = self._clock()
        with self._lock:
            found = {name: "".join(texts) for name, texts in self._waiting.items()}
            for texts in self._waiting.values():
                texts.clear()
        pieces = [
            Progress("generating", question_id=name, text=text)
            for name, text in found.items()
            if text
        ]
        if pieces:
            self._report(*pieces)
