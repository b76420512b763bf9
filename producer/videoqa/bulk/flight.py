"""Flight: one row on its way, and the request that it becomes.

The idempotency key is made of where the result goes, the row's id and all of its request. So a
run that goes on joins the job that an earlier one submitted, whichever host that was on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from videoqa.bulk.manifest import Row
from videoqa.bulk.place import Place
from videoqa.contract import Job, JobRequest

__all__ = ["Flight"]


@dataclass
class Flight:
    """A row and what this run did about it."""

    row: Row
    number: int = 0
    """Of its jobs: another one is needed where the record of the last lies about the result."""
    known: bool = False
    """Something of the row lay in OUTPUT before."""
    submitted: bool = False
    reopened: bool = False
    """Its failed job was retried, once a run."""
    job: Job | None = None
    """As it ended; None: not seen to end, or not there."""

    def request(self, place: Place) -> JobRequest:
        output = place.template
        body = self.row.request.model_copy(update={"output": output})
        text = f"{body.model_dump_json(exclude_defaults=True)}\n{self.number}"
        key = "caption-" + hashlib.sha256(text.encode()).hexdigest()
        return body.model_copy(update={"idempotency_key": key})
