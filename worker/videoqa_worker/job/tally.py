"""AttemptTally: what one attempt has used and done, for whoever counts: metrics, and the profile of a worker.

The steps of an attempt write into it without knowing who reads it, once the attempt is over.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from videoqa.contract import Priority
from videoqa_worker.sources import LocalCopy

if TYPE_CHECKING:  # a dry run has no need of torch
    from videoqa_worker.engine import Generated

__all__ = ["AttemptTally", "ObserveAttempt", "Outcome"]

Outcome = Literal["succeeded", "failed", "retried", "canceled", "followed", "given_back", "lost"]


@dataclass(eq=False)
class AttemptTally:
    """Counts of one attempt; each step writes its own."""

    priority: Priority = "interactive"
    queued_s: float = 0.0
    """Time for which the job could have begun."""
    outcome: Outcome = "lost"
    code: str | None = None
    """Code of the failure."""
    begun_s: float = field(default_factory=time.monotonic)
    total_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Time in each stage that the attempt came to."""
    answers: list[Generated] = field(default_factory=list)
    """Answers that the model gave."""
    frames_exact: int = 0
    frames_near: int = 0
    """Frames beside the time that was asked for."""
    copies: list[tuple[str, LocalCopy]] = field(default_factory=list)
    """Inputs that were opened, with the schemes of their URLs."""
    cache: Literal["hit", "miss"] | None = None
    """Result of a look for the answers of an earlier job; None: there was none."""

    def note_copy(self, url: str, copy: LocalCopy) -> None:
        """Notes an input that is open; what it cost is read when the attempt is over."""
        self.copies.append((url.partition(":")[0].lower(), copy))

    def end(self) -> None:
        self.total_s = time.monotonic() - self.begun_s


ObserveAttempt = Callable[[AttemptTally], None]
"""Called with the tally of an attempt that has ended, on the thread that ran it."""
