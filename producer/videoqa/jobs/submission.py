"""Submission: a request on its way to its record, as arguments and reply of the `submit` script.

Does no I/O.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from videoqa import errors
from videoqa.contract import JobRequest, is_file_id, name_receiver
from videoqa.jobs.key_quota import KeyQuota
from videoqa.jobs.keys import queue_name
from videoqa.jobs.selection import make_filters, summarize_request

__all__ = ["Submission", "SubmitResult", "new_job_id"]

MAX_REQUEST_BYTES = 1 << 20
MAX_TOLD_METADATA_BYTES = 8_000
"""Larger metadata is left out of a webhook's call, which is to stay below 20 kB."""


def new_job_id() -> str:
    """Makes `job_` + 44 bits of time + 64 random bits in hex: sorts by time, cannot be guessed."""
    return f"job_{int(time.time() * 1000):011x}{secrets.token_hex(8)}"


@dataclass(frozen=True)
class SubmitResult:
    """Outcome of one submission: recorded, known before, or refused (`error`)."""

    job_id: str | None = None
    """The job that was recorded, or that the idempotency key had made before; None: refused."""
    is_new: bool = False
    """The job was recorded now."""
    created_at_s: float = 0.0
    """The time of that, by Redis' clock."""
    ring: str | None = None
    """The queue to ring; None: bells enough are on their way, or nothing was recorded."""
    error: errors.VideoQAError | None = None
    """The reason why nothing was recorded."""

    @property
    def known_id(self) -> str | None:
        """The job that the idempotency key had made before; None: it is new, or was refused."""
        return None if self.is_new else self.job_id


class Submission:
    """A request with the id of the job that it becomes once the `submit` script has recorded it."""

    def __init__(
        self,
        job_id: str,
        request: JobRequest,
        *,
        key: KeyQuota | None = None,
        traceparent: str = "",
    ) -> None:
        """Raises InvalidRequest if it is over 1 MiB as JSON, or names a file that only its gateway can find.

        Arguments:
            key: the API key for which the job is counted.
            traceparent: the span of the caller, as `TraceContext` writes it; empty: the job has a trace of its own.
        """
        for n, each in enumerate(request.inputs):
            if is_file_id(each.url):
                raise errors.InvalidRequest(
                    f"inputs.{n}.url: got {each.url}, the id of an uploaded file, expected a URL; submit the job to "
                    "the gateway that has the file",
                    param=f"inputs.{n}.url",
                )
        self.job_id = job_id
        self.request = request
        self.key = key
        self.traceparent = traceparent
        self.summary = summarize_request(request)
        # Sorted and compact: the digest of a request must not depend on its spelling.
        data = json.loads(request.model_dump_json(exclude_defaults=True))
        data["max_attempts"] = request.max_attempts
        self.text = json.dumps(data, separators=(",", ":"), sort_keys=True)
        if len(self.text) > MAX_REQUEST_BYTES:
            raise errors.InvalidRequest(
                f"got a request of {len(self.text)} bytes as JSON, expected at most "
                f"{MAX_REQUEST_BYTES}"
            )

    def lua_args(
        self, prefix: str, start_by_default_s: float, max_queued: int
    ) -> list[str | float]:
        """Returns the arguments of the `submit` script after the prefix."""
        request, key = self.request, self.request.idempotency_key
        return [
            self.job_id,
            self.text,
            queue_name(prefix, request.model, request.priority),
            request.max_attempts,
            request.timeout_s,
            request.result_ttl_s,
            request.start_by.timestamp() if request.start_by else "",
            digest_idempotency_key(request.tenant, key) if key else "",
            _digest(self.text),
            start_by_default_s,
            max_queued,
            request.tenant or "",
            self._write_filters(),
            *self._write_webhook(),
            *(self.key.lua_args() if self.key else ("", "")),
            self.summary.model_dump_json(),
            request.custom_id or "",
            self.traceparent,
        ]

    def _write_filters(self) -> str:
        """Returns the filters by which the job is listed as JSON; empty: none."""
        filters = make_filters(self.request.tags, self.request.model)
        return json.dumps(filters, ensure_ascii=False, separators=(",", ":")) if filters else ""

    def _write_webhook(self) -> tuple[str, str]:
        """Returns the final states that are told, and the URL and the job's own words as JSON; empty: no webhook."""
        request, webhook = self.request, self.request.webhook
        if webhook is None:
            return "", ""
        own: dict[str, Any] = {
            "custom_id": request.custom_id,
            "model": request.model,
            "tags": request.tags,
            "metadata": request.metadata,
        }
        if len(json.dumps(request.metadata, ensure_ascii=False).encode()) > MAX_TOLD_METADATA_BYTES:
            own |= {"metadata": None, "metadata_omitted": True}
        told = {"url": webhook.url, "receiver": name_receiver(webhook.url), "job": own}
        if self.traceparent:
            told["traceparent"] = self.traceparent
        states = " ".join(event.removeprefix("job.") for event in webhook.events)
        return states, json.dumps(told, ensure_ascii=False, separators=(",", ":"))

    def parse_reply(self, reply: Sequence[Any], max_queued: int) -> SubmitResult:
        """Parses the reply of the `submit` script."""
        request = self.request
        match reply[0]:
            case "new":
                if self.key and len(reply) > 3:
                    self.key.note(str(reply[3]))
                return SubmitResult(
                    job_id=self.job_id,
                    is_new=True,
                    created_at_s=float(reply[2]),
                    ring=str(reply[1]) or None,
                )
            case "limit" if self.key:
                self.key.note(str(reply[2]))
                return SubmitResult(error=self.key.refuse(str(reply[1])))
            case "same":
                return SubmitResult(job_id=str(reply[1]))
            case "conflict":
                return SubmitResult(
                    error=errors.IdempotencyConflict(
                        f"idempotency_key {request.idempotency_key!r} already belongs to job "
                        f"{reply[1]} with another request; use a new key for a new request",
                        param="idempotency_key",
                    )
                )
        return SubmitResult(
            error=errors.QueueFull(
                f"{reply[1]} {request.priority} jobs wait for {request.model or 'the default model'}, "
                f"expected fewer than {max_queued}; nothing was recorded, submit it again later, add "
                "workers, or raise VIDEOQA_MAX_QUEUED"
            )
        )


def digest_idempotency_key(tenant: str | None, key: str) -> str:
    """Returns the name of an idempotency key; a tenant's are its own: another's is neither found nor in conflict."""
    return _digest(json.dumps([tenant, key]))


def _digest(text: str) -> str:
    """Returns 128 bits: two of 10^15 texts are the same with a probability of one in 10^9."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]
