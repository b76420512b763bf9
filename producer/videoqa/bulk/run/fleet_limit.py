"""FleetLimit: the number of jobs that a run keeps open, by what the workers announce."""

from __future__ import annotations

import time
from typing import Protocol

from videoqa import errors
from videoqa.contract import JobRequest, QueueInfo, WorkerInfo
from videoqa.jobs import queue_name

__all__ = ["FleetLimit"]

REFRESH_S = 5.0
PER_SLOT = 2
"""Jobs per slot: one that runs, and one that its worker finds waiting when it ends."""
WITHOUT_WORKERS = 64
"""Jobs in flight while no worker is ready: enough for the first ones that come."""
MOST = 10_000


class Fleet(Protocol):
    """The part of a client that the limit needs."""

    def queues(self) -> list[QueueInfo]: ...

    def workers(self) -> list[WorkerInfo]: ...


class FleetLimit:
    """Twice the slots of all ready workers that serve the rows' queues, read every few seconds."""

    def __init__(self, client: Fleet, fixed: int | None) -> None:
        """`fixed`: the limit, whatever the fleet is; None: it follows the fleet."""
        self._client, self._fixed = client, fixed
        self._queues: set[str] = set()
        self._models: set[str] = set()
        self._read_at_s = 0.0
        self._slots = 0
        self.has_workers = True
        """False: no worker, not even one that loads its model, serves the rows."""

    def add(self, request: JobRequest) -> None:
        """Notes the queue of a row."""
        queue = queue_name("", request.model, request.priority)
        if queue not in self._queues:
            self._queues.add(queue)
            self._models.add(f"model {request.model}" if request.model else "any model")
            self._read_at_s = 0.0

    def describe_missing(self) -> str:
        """Returns the sentence about rows that no worker serves."""
        return (
            f"no running worker serves {' or '.join(sorted(self._models))}; the jobs wait for one"
        )

    def read(self) -> int:
        """Returns the most jobs that are to be open now; an outage of Redis changes nothing."""
        now_s = time.monotonic()
        if self._queues and now_s >= self._read_at_s:
            self._read_at_s = now_s + REFRESH_S
            try:
                self._read_fleet()
            except (errors.Unavailable, errors.RateLimited):
                return self._limit()
        return self._limit()

    def _read_fleet(self) -> None:
        try:
            workers = [
                info
                for info in self._client.workers()
                # A gateway's Redis may have another prefix than this process knows.
                if any(_drop_prefix(name) in self._queues for name in info.queues)
            ]
        except errors.OperatorOnly:  # a gateway shows its workers to operators only
            self._read_queues()
            return
        self.has_workers = bool(workers)
        self._slots = sum(info.slots for info in workers if info.ready)

    def _read_queues(self) -> None:
        """Reads the slots of the largest of the rows' queues: two may have the same workers."""
        found = [
            queue
            for queue in self._client.queues()
            if queue_name("", queue.model, queue.priority) in self._queues
        ]
        self.has_workers = any(queue.workers for queue in found)
        self._slots = max((queue.slots for queue in found), default=0)

    def _limit(self) -> int:
        return self._fixed or min(PER_SLOT * self._slots or WITHOUT_WORKERS, MOST)


def _drop_prefix(name: str) -> str:
    return "." + name.partition(".")[2]
