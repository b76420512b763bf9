"""JobControl: whether one attempt should go on. Checked while fetching, decoding and generating."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from videoqa.errors import JobError, JobTimeout

__all__ = ["JobControl"]


class JobControl:
    """Set from the heartbeat's thread, read from the job's own. Knows nothing of Redis."""

    def __init__(
        self,
        job_id: str,
        attempt: int,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        token: str = "",
    ) -> None:
        """`token`: of the claim, which fences every write of the attempt."""
        self.job_id = job_id
        self.attempt = attempt
        self.token = token
        self._timeout_s = timeout_s
        self._clock = clock
        self._deadline = clock() + timeout_s
        self._reason: JobError | None = None
        self._lock = threading.Lock()

    def stop(self, reason: JobError) -> None:
        """The first reason stays."""
        with self._lock:
            self._reason = self._reason or reason

    def stopped(self) -> bool:
        """Cheap enough for every decode step."""
        return self._reason is not None or self._clock() > self._deadline

    def check(self) -> None:
        """Raises the reason if the attempt should end: JobCanceled, JobTimeout, LeaseLost..."""
        if self._reason is not None:
            raise self._reason
        if self._clock() > self._deadline:
            raise JobTimeout(f"the attempt ran longer than timeout_s={self._timeout_s:g}")
