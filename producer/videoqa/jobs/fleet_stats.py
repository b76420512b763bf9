"""Figures of the fleet: the minute rings, queues and workers of one time, as `Stats`. Does no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from videoqa.contract import ModelStats, QueueInfo, Stats, StatsSpan, WorkerInfo, to_datetime
from videoqa.jobs.attention import LATE_S, Fleet, Webhooks, find_attention
from videoqa.jobs.keys import quote_model, unquote_model
from videoqa.jobs.rings import Ring, Window

__all__ = ["RingsRead", "describe_webhooks", "make_stats"]

OTHER = "*"
"""Name of the ring of the models beyond the limit."""


@dataclass(frozen=True)
class RingsRead:
    """The minute rings at one time."""

    now_s: float
    """Time by the clock of Redis."""
    rings: Mapping[str, Ring]
    """Rings by the model's name as it is in the names of queues."""
    webhooks: Webhooks


def make_stats(
    span: StatsSpan,
    read: RingsRead,
    queues: Sequence[QueueInfo],
    workers: Sequence[WorkerInfo],
    *,
    model: str | None = None,
) -> Stats:
    """Makes the figures of the fleet, or of one model; what needs attention is always the fleet's."""
    window, hour = Window(span, read.now_s), Window("hour", read.now_s)
    names = {*read.rings, *(quote_model(queue.model) for queue in queues)}
    names |= {quote_model(worker.model) for worker in workers}
    listed = sorted(names, key=lambda name: (name == OTHER, unquote_model(name) or ""))
    rings = {name: read.rings.get(name) or Ring([]) for name in listed}

    def describe(ring: Ring, of: Window, name: str | None = None) -> ModelStats:
        own = [queue for queue in queues if name in (None, quote_model(queue.model))]
        return _add_queues(ring.describe(of), own, name)

    hours = [describe(ring, hour, name) for name, ring in rings.items()]
    wanted = [name for name in listed if model is None or name == quote_model(model)]
    fleet = Fleet(queues, workers, hours, read.webhooks)
    return Stats(
        span=span,
        at=to_datetime(read.now_s),
        since=to_datetime(window.since_s),
        step_s=window.step_s,
        attention=find_attention(fleet),
        all=_count_workers_once(describe(Ring.join(rings.values()), window), workers),
        models=tuple(
            describe(rings[name], window, name) if span == "day" else hours[listed.index(name)]
            for name in wanted
        ),
    )


def _count_workers_once(found: ModelStats, workers: Sequence[WorkerInfo]) -> ModelStats:
    """Counts each ready worker once, though it may serve the queues of its model and those of no model."""
    ready = [worker for worker in workers if worker.ready]
    return found.model_copy(
        update={"workers": len(ready), "slots": sum(worker.slots for worker in ready)}
    )


def _add_queues(found: ModelStats, queues: Sequence[QueueInfo], name: str | None) -> ModelStats:
    """Adds what the queues of the model have now; workers serve both, so theirs are not added up."""
    own: dict[str | None, list[QueueInfo]] = {}
    for queue in queues:
        own.setdefault(queue.model, []).append(queue)
    ages = [queue.oldest_s for queue in queues if queue.oldest_s is not None]
    return found.model_copy(
        update={
            "model": None if name in (None, OTHER) else unquote_model(name),
            "other": name == OTHER,
            "waiting": sum(queue.waiting + queue.due for queue in queues),
            "running": sum(queue.running for queue in queues),
            "delayed": sum(queue.delayed - queue.due for queue in queues),
            "oldest_s": max(ages, default=None),
            "paused": any(queue.paused for queue in queues),
            "workers": sum(max(queue.workers for queue in each) for each in own.values()),
            "slots": sum(max(queue.slots for queue in each) for each in own.values()),
        }
    )


def describe_webhooks(
    now_s: float, *, pending: Any, oldest: Any, given_up: Any, first_left: str | None
) -> Webhooks:
    """Makes the state of deliveries of replies of Redis; keys that another program took count nothing.

    Arguments:
        first_left: id of the oldest entry of the outbox, which no gateway has taken.
    """
    late = pending if isinstance(pending, int) else 0
    ages = [now_s - float(oldest[0][1])] if isinstance(oldest, list) and oldest else []
    if first_left is not None and now_s - _parse_ms(first_left) >= LATE_S:
        late += 1
        ages.append(now_s - _parse_ms(first_left))
    return Webhooks(
        late=late,
        oldest_s=max([0.0, *ages]),
        given_up=given_up if isinstance(given_up, int) else 0,
    )


def _parse_ms(event_id: str) -> float:
    return int(event_id.partition("-")[0]) / 1000
