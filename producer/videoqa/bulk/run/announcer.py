"""RunAnnouncer: a run tells the fleet how it fares, every few seconds, from a thread of its own.

A run never waits for it, and never fails by it: while Redis or the gateway is away it tries again later, and where
the gateway is of a release without runs, or the key may not, it stays silent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Protocol

from videoqa import errors
from videoqa.contract import (
    MOST_EXAMPLES,
    MOST_RUN_CODES,
    FailedRow,
    RunFailures,
    RunReport,
    RunState,
    make_failed_row,
)
from videoqa.telemetry import log_events

__all__ = ["HTTP_EVERY_S", "REDIS_EVERY_S", "RunAnnouncer", "RunProgress"]

log = logging.getLogger(__name__)

REDIS_EVERY_S = 3.0
HTTP_EVERY_S = 15.0
"""Pause between two words: at a gateway they count in the rate of the key, as four requests a minute."""
AWAY_S = 30.0
"""Pause after a word that did not get through."""
LAST_WORD_S = 3.0
"""Longest time that the end of a run waits for its last word to get through."""
WINDOW_S = 30.0
"""The rate is that of the last 30 s."""


class FleetWriter(Protocol):
    """The call of a client that announces."""

    def announce_run(self, report: RunReport, *, begins: bool = False) -> None: ...


@dataclass(frozen=True)
class RunProgress:
    """Numbers of rows of a run."""

    total: int = 0
    done: int = 0
    failed: int = 0
    skipped: int = 0
    in_flight: int = 0


class RunAnnouncer:
    """The words of one run. Its calls do no I/O but for `close`."""

    def __init__(self, client: FleetWriter, about: RunReport, *, every_s: float) -> None:
        """
        Arguments:
            about: the report of the run, without its numbers.
        """
        self._client, self._about, self._every_s = client, about, every_s
        self._progress = RunProgress()
        self._message: str | None = None
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[FailedRow]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._state: RunState = "running"
        self._begins = True
        self._thread = threading.Thread(target=self._speak, name="videoqa-run", daemon=True)
        self._thread.start()

    def update(self, progress: RunProgress) -> None:
        """Takes the numbers as they are now."""
        self._progress = progress

    def note(self, message: str | None) -> None:
        """Takes the reason for which the run waits; None: it waits no more."""
        self._message = _clean(message) if message else None

    def note_failure(self, code: str, row: str, message: str, job_id: str | None) -> None:
        """Counts a failed row, of which the first ones of each code are named."""
        with self._lock:
            if code not in self._counts and len(self._counts) >= MOST_RUN_CODES:
                return
            self._counts[code] += 1
            rows = self._examples.setdefault(code, [])
            if len(rows) < MOST_EXAMPLES:
                rows.append(make_failed_row(_clean(row), _clean(message), job_id))

    def close(self, state: RunState, message: str | None = None) -> None:
        """Says the last word, and waits some seconds at most for it to get through."""
        self.note(message)
        self._state = state
        self._closed.set()
        self._thread.join(LAST_WORD_S)

    def _speak(self) -> None:
        pause_s = 0.0
        while not self._closed.wait(pause_s):
            try:
                self._announce()
                pause_s = self._every_s
            except (errors.Unavailable, errors.RateLimited) as error:
                log_events.RUN_NOT_ANNOUNCED.log(log, error=error)
                pause_s = AWAY_S
            except errors.VideoQAError as error:
                log_events.RUN_NOT_ANNOUNCED.log(log, error=error)
                return
            except Exception:  # noqa: BLE001 - it is logged
                log_events.RUN_ANNOUNCER_FAILED.log(log, exc_info=True)
                return
        try:
            self._announce()
        except Exception as error:  # noqa: BLE001 - the run has ended, and does not depend on it
            log_events.RUN_NOT_ANNOUNCED.log(log, error=error)

    def _announce(self) -> None:
        self._client.announce_run(self._report(), begins=self._begins)
        self._begins = False

    def _report(self) -> RunReport:
        found = self._progress
        with self._lock:
            failures = tuple(
                RunFailures(code=code, count=count, examples=tuple(self._examples[code]))
                for code, count in self._counts.most_common()
            )
        return self._about.model_copy(
            update={
                "state": self._state,
                "message": (self._message or "")[:300] or None,
                "total": found.total,
                "done": found.done,
                "failed": found.failed,
                "skipped": found.skipped,
                "in_flight": found.in_flight if self._state == "running" else 0,
                "rate": round(self._measure_rate(found.done), 4),
                "failures": failures,
            }
        )

    def _measure_rate(self, done: int) -> float:
        now_s = time.monotonic()
        self._marks.append((now_s, done))
        while now_s - self._marks[0][0] > WINDOW_S and len(self._marks) > 2:
            self._marks.popleft()
        since_s, before = self._marks[0]
        return max(0, done - before) / max(now_s - since_s, 0.001)


def _clean(text: str) -> str:
    """Returns text that JSON can carry: names of files may have bytes that are no UTF-8."""
    return text.encode(errors="replace").decode()
