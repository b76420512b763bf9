"""Tally: counts of the jobs of a run, by how they ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from videoqa.contract import FINAL_STATES, Event

__all__ = ["Tally"]


@dataclass
class Tally:
    """Counts of the jobs of a run, by how they ended."""

    row: str
    jobs: int = 0
    kills: int = 0
    held: int = 0
    """Jobs that ran on a worker when it was killed: so many may have to ask the model again."""
    lost: int = 0
    """Acknowledged, and no record or no result any more."""
    wrong: int = 0
    """Failed, or another answer than without faults."""
    conflict: int = 0
    """More than one final state, or an object that is not the record's result."""
    stuck: int = 0
    """Not final after the drain."""
    extra_runs: int = 0
    """Times that the model was asked beyond once a job."""
    recovery_s: list[float] = field(default_factory=list)
    """Seconds from the last word of a lost attempt to the first of the next."""
    seconds: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)

    def count(self, events: Sequence[Event]) -> None:
        """Adds the events of one job."""
        runs = sum(event.type == "stage" and event.stage == "generating" for event in events)
        ends = sum(event.type == "state" and event.state in FINAL_STATES for event in events)
        self.extra_runs += max(0, runs - 1)
        self.conflict += ends > 1
        self.recovery_s += recoveries(events)

    @property
    def sound(self) -> bool:
        broken = self.lost or self.wrong or self.conflict or self.stuck
        return not broken and self.extra_runs <= self.held

    def as_json(self) -> dict[str, Any]:
        found = {
            name: getattr(self, name)
            for name in (
                "row", "jobs", "kills", "held", "lost", "wrong", "conflict", "stuck", "extra_runs"
            )
        }  # fmt: skip
        recovery = sorted(self.recovery_s)
        if recovery:
            found["recovery_p50_s"] = round(recovery[len(recovery) // 2], 2)
            found["recovery_p99_s"] = round(recovery[int(len(recovery) * 0.99)], 2)
        return found | {"seconds": round(self.seconds, 1), **self.notes}


def recoveries(events: Sequence[Event]) -> list[float]:
    """Seconds from the last word of a worker that was lost to the next one's first."""
    running = [event for event in events if event.state == "running"]
    return [
        (after.at - before.at).total_seconds()
        for before, after in pairwise(running)
        if after.attempt > before.attempt
    ]
