"""FleetMetrics: the queues, workers and ended jobs, read from Redis for a scrape.

All gateways read the same. A scrape costs Redis five round trips, however many jobs there are, and a second one
within a moment none; so does an outage, in which there are no values but `videoqa_redis_up`: a value that is not known
is not 0.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric as Family

from videoqa.contract import PRIORITIES, QueueInfo, WorkerInfo
from videoqa.errors import RedisUnavailable
from videoqa.telemetry.metrics import Metric
from videoqa.telemetry.metrics import gateway as declared
from videoqa.telemetry.metrics.declaration import OTHER
from videoqa.telemetry.metrics.instruments import Samples, make_family

__all__ = ["FleetMetrics", "FleetState", "make_fleet_families"]

KEPT_S = 1.0
"""Time for which what was read is given again."""
MOST_S = 0.8
"""Longest time for the reading, so that a scrape takes less than a second."""
MOST_MODELS = 100
DEFAULT = "default"
"""Value of the label `model` for jobs that name none."""


@dataclass(frozen=True)
class FleetState:
    """State of the fleet, as Redis has it."""

    queues: Sequence[QueueInfo]
    workers: Sequence[WorkerInfo]
    ended: dict[str, int]
    """Jobs that have ended by their state, and those that failed by `failed CODE`."""
    dead: dict[str, int]
    """Dead letters by their codes."""
    deliveries: dict[str, int]
    """Deliveries of webhooks by their status."""


class FleetMetrics:
    """Reads the state of the fleet, at most once in a moment; for one event loop."""

    def __init__(self, read: Callable[[], Awaitable[FleetState]]) -> None:
        """
        Arguments:
            read: raises RedisUnavailable.
        """
        self._read = read
        self._lock = asyncio.Lock()
        self._found: list[Family] = []
        self._found_at_s = -KEPT_S

    async def collect(self) -> list[Family]:
        """Returns the metrics, or only that there are none."""
        async with self._lock:
            if time.monotonic() - self._found_at_s >= KEPT_S:
                self._found = await self._look()
                self._found_at_s = time.monotonic()
            return self._found

    async def _look(self) -> list[Family]:
        try:
            async with asyncio.timeout(MOST_S):
                state = await self._read()
        except (RedisUnavailable, TimeoutError):
            return make_fleet_families(None)
        return make_fleet_families(state)


def make_fleet_families(state: FleetState | None) -> list[Family]:
    """Returns the metrics of the fleet; None: Redis cannot be read."""
    up: Samples = {(): 0 if state is None else 1}
    found = [make_family(declared.REDIS_UP, up)]
    if state is None:
        return found
    return [*found, *(make_family(metric, samples) for metric, samples in _list_samples(state))]


def _list_samples(state: FleetState) -> Iterable[tuple[Metric, Samples]]:
    models = _list_models(state)
    yield from _list_queues(state.queues, models)
    yield declared.JOBS, _fill(declared.JOBS, state.ended)
    failures: Counter[str] = Counter()
    for name, count in state.ended.items():
        kind, _, code = name.partition(" ")
        if kind == "failed" and code:
            failures[_limit(code, declared.JOB_FAILURES)] += count
    yield declared.JOB_FAILURES, _fill(declared.JOB_FAILURES, failures)
    dead: Counter[str] = Counter()
    for code, count in state.dead.items():
        dead[_limit(code, declared.DEAD_LETTERS)] += count
    yield declared.DEAD_LETTERS, _fill(declared.DEAD_LETTERS, dead)
    states = declared.WORKERS.labels[1].values
    workers: dict[tuple[str, ...], float] = {
        (model, state): 0 for model in models if model != DEFAULT for state in states
    }
    slots: dict[tuple[str, ...], float] = {(model,): 0 for model in models if model != DEFAULT}
    for worker in state.workers:
        model = worker.model if (worker.model, "ready") in workers else OTHER
        workers[model, worker.state] += 1
        slots[model,] += worker.slots if worker.ready else 0
    yield declared.WORKERS, workers
    yield declared.SLOTS, slots
    yield declared.WEBHOOK_DELIVERIES, _fill(declared.WEBHOOK_DELIVERIES, state.deliveries)


def _list_models(state: FleetState) -> tuple[str, ...]:
    """Lists the values of the label `model`: whoever submits a job may name any model, and none of these is one."""
    announced = {worker.model for worker in state.workers}
    announced |= {
        queue.model for queue in state.queues if queue.model and queue.served_s is not None
    }
    return (*sorted(announced)[:MOST_MODELS], DEFAULT, OTHER)


def _list_queues(
    queues: Sequence[QueueInfo], models: Sequence[str]
) -> Iterable[tuple[Metric, Samples]]:
    names = [(model, priority) for model in models for priority in PRIORITIES]
    of: dict[str, list[QueueInfo]] = defaultdict(list)
    for queue in queues:
        model = DEFAULT if queue.model is None else queue.model
        of[f"{model if model in models else OTHER} {queue.priority}"].append(queue)

    def each(value: Callable[[list[QueueInfo]], float]) -> Samples:
        return {name: value(of[" ".join(name)]) for name in names}

    yield declared.QUEUE_WAITING, each(lambda found: sum(one.waiting for one in found))
    yield declared.QUEUE_DELAYED, each(lambda found: sum(one.delayed for one in found))
    yield declared.QUEUE_DUE, each(lambda found: sum(one.due for one in found))
    yield (
        declared.QUEUE_OLDEST_DUE,
        each(
            lambda found: max([0.0, *(max(one.oldest_s or 0.0, one.due_s or 0.0) for one in found)])
        ),
    )
    yield declared.QUEUE_PAUSED, each(lambda found: any(one.paused for one in found))
    yield declared.JOBS_RUNNING, each(lambda found: sum(one.running for one in found))


def _limit(value: str, metric: Metric) -> str:
    return value if value in metric.labels[0].values else OTHER


def _fill(metric: Metric, found: dict[str, int] | Counter[str]) -> Samples:
    """Returns all series of a metric with one label, 0 where nothing was found."""
    return {values: found.get(values[0], 0) for values in metric.list_label_values()}
