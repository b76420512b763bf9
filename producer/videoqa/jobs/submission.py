"""Submission: a request on its way to become a record, and the bell that is then to be rung.

Says what the `submit` script is called with and what its reply means; talks to nobody.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from videoqa import errors
from videoqa.contract import JobRequest
from videoqa.jobs.keys import queue_name

__all__ = ["Bell", "Place", "Submission", "new_job_id", "to_bell"]

MAX_REQUEST_BYTES = 1 << 20


@dataclass(frozen=True)
class Bell:
    """What a Celery message says: a job waits in this queue."""

    job_id: str
    """For whom it was rung; whoever hears it may find another job first in line."""
    attempt: int
    bell: int
    queue: str


def new_job_id() -> str:
    """`job_` + 44 bits of time + 64 random bits in hex: sorts by time, cannot be guessed."""
    return f"job_{int(time.time() * 1000):011x}{secrets.token_hex(8)}"


class Place(NamedTuple):
    """Where a job stands in an index; it can be found again when the job's entry is gone."""

    at_s: float
    """When the job was recorded, by Redis' clock: an id bears its producer's clock."""
    job_id: str

    @property
    def cursor(self) -> str:
        return f"{self.at_s:.6f}-{self.job_id}"

    @classmethod
    def of_cursor(cls, cursor: str) -> Place:
        """Raises InvalidRequest: it is no cursor."""
        found = re.fullmatch(r"(\d{1,12}\.\d{6})-(job_[0-9a-f]{27})", cursor)
        if not found:
            raise errors.InvalidRequest(
                f"got cursor={cursor!r}, expected the `next_cursor` of a page", param="cursor"
            )
        return cls(float(found[1]), found[2])


def to_bell(reply: Sequence[Any]) -> Bell:
    """What a script says of a bell."""
    job_id, attempt, bell, queue = reply
    return Bell(job_id=str(job_id), attempt=int(attempt), bell=int(bell), queue=str(queue))


class Submission:
    """One job to be."""

    def __init__(self, job_id: str, request: JobRequest) -> None:
        """Raises InvalidRequest: it is over 1 MiB as JSON."""
        self.job_id = job_id
        self.request = request
        # In one spelling, so that the same request has the same digest.
        data = json.loads(request.model_dump_json(exclude_defaults=True))
        data["max_attempts"] = request.max_attempts
        self.text = json.dumps(data, separators=(",", ":"), sort_keys=True)
        if len(self.text) > MAX_REQUEST_BYTES:
            raise errors.InvalidRequest(
                f"got a request of {len(self.text)} bytes as JSON, expected at most "
                f"{MAX_REQUEST_BYTES}"
            )

    def order(self, prefix: str, start_by_default_s: float, max_queued: int) -> list[str | float]:
        """The script's arguments after the prefix."""
        request, key = self.request, self.request.idempotency_key
        return [
            self.job_id,
            self.text,
            queue_name(prefix, request.model, request.priority),
            request.max_attempts,
            request.timeout_s,
            request.result_ttl_s,
            request.start_by.timestamp() if request.start_by else "",
            _digest(key) if key else "",
            _digest(self.text),
            start_by_default_s,
            max_queued,
            request.tenant or "",
            *request.tags,
        ]

    def outcome(
        self, reply: Sequence[Any], max_queued: int
    ) -> Bell | str | errors.IdempotencyConflict | errors.QueueFull:
        """The bell to ring, the id of the job that the idempotency key made before, or why not."""
        request = self.request
        if reply[0] == "full":
            return errors.QueueFull(
                f"{reply[1]} {request.priority} jobs wait for {request.model or 'the default model'}, "
                f"expected fewer than {max_queued}; nothing was recorded, submit it again later, add "
                "workers, or raise VIDEOQA_MAX_QUEUED"
            )
        if reply[0] == "conflict":
            return errors.IdempotencyConflict(
                f"idempotency_key {request.idempotency_key!r} already belongs to job {reply[1]} with "
                "another request; use a new key for a new request",
                param="idempotency_key",
            )
        return str(reply[1]) if reply[0] == "same" else to_bell(reply[1:])


def _digest(text: str) -> str:
    """128 bits: two of 10^15 texts are the same with a probability of one in 10^9."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]
