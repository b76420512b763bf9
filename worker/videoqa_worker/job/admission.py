"""Admission: decides with each claim whether another attempt may begin in this worker.

Of the jobs that ran in a process that died one at most is guilty. So the last attempt of a job that
lost its workers is exclusive: the claim script hands it only to a worker in which nothing runs, and
nothing is claimed beside it until it ends. A busy worker that meets such a job is reserved for it: it
claims nothing else, and repeats the claim when its attempts have ended. Meanwhile it asks twice a
second, since the job may have been claimed by an idle worker, or canceled; then it goes on at once.
After a minute it counts as idle: a long video that runs there does not keep it from all other jobs.

Claims are made one at a time, so that "nothing runs here" still holds when Redis is told so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from videoqa.jobs import ClaimResult

__all__ = ["MOST_WAIT_S", "Admission"]

MOST_WAIT_S = 60.0
"""Longest wait for an idle worker: what still runs then has run for longer, and ended no process so far."""
_ASK_EVERY_S = 0.5
"""Well below the 10 s for which the claim script leaves the job to the worker that is reserved for it."""


class Admission:
    """Counts the attempts of one worker and claims for them. Thread-safe."""

    def __init__(self) -> None:
        self._claims = threading.Lock()
        self._changed = threading.Condition()
        self._running = 0
        self._is_reserved = False

    @property
    def is_reserved(self) -> bool:
        """An exclusive attempt runs, or a thread waits until this worker is idle: nothing else is claimed."""
        return self._is_reserved

    @contextmanager
    def claiming(
        self,
        claim: Callable[[bool], ClaimResult],
        is_closing: Callable[[], bool],
        on_answer: Callable[[ClaimResult | None], None] = lambda result: None,
    ) -> Iterator[ClaimResult | None]:
        """Claims a job, which counts as running until the block ends.

        Yields None if this worker claims nothing now.

        Arguments:
            claim: called with whether nothing runs in this worker; several times if the worker is reserved.
            is_closing: ends the waiting.
            on_answer: called with each result of `claim`, and with None if it is not even called.
        """
        result = self._claim(claim, is_closing, on_answer)
        try:
            yield result
        finally:
            if result is not None and result.is_claimed:
                self._leave(result)

    def _claim(
        self,
        claim: Callable[[bool], ClaimResult],
        is_closing: Callable[[], bool],
        on_answer: Callable[[ClaimResult | None], None],
    ) -> ClaimResult | None:
        with self._claims:
            refuses = self._is_reserved or is_closing()
            result = None if refuses else self._claim_once(claim, is_idle=self._running == 0)
        on_answer(result)
        until_s = time.monotonic() + MOST_WAIT_S
        while result and result.must_wait:
            with self._changed:
                self._changed.wait_for(lambda: not self._running, timeout=_ASK_EVERY_S)
            with self._claims:
                if is_closing():
                    self._is_reserved = False
                    return None
                is_idle = self._running == 0 or time.monotonic() > until_s
                result = self._claim_once(claim, is_idle=is_idle)
            on_answer(result)
        return result

    def _claim_once(self, claim: Callable[[bool], ClaimResult], *, is_idle: bool) -> ClaimResult:
        """Called with the lock of claims held: attempts may end meanwhile, and none begins."""
        self._is_reserved = False  # also if the claim raises
        result = claim(is_idle)
        with self._changed:
            self._running += result.is_claimed
        self._is_reserved = result.must_wait or result.is_exclusive
        return result

    def _leave(self, result: ClaimResult) -> None:
        with self._changed:
            self._running -= 1
            if result.is_exclusive:
                self._is_reserved = False
            self._changed.notify_all()
