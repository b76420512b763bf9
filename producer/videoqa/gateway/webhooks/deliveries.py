"""Deliveries in Redis: those to be made, those under way, and those that have ended; each change is one script."""

from __future__ import annotations

import heapq
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any, Literal, cast

import redis
from pydantic import BaseModel, ConfigDict, ValidationError

from videoqa.contract import Failure, redact_url, to_datetime
from videoqa.errors import DeliveryNotFound, InvalidRequest
from videoqa.jobs import execute_each, quote_tenant, translate_redis_errors
from videoqa.printable import printable
from videoqa.telemetry import log_events

__all__ = [
    "Delivery",
    "DeliveryAttempt",
    "DeliveryPage",
    "DeliveryStatus",
    "DeliveryStore",
    "Leased",
    "Outcome",
    "Taken",
]

log = logging.getLogger(__name__)

DeliveryStatus = Literal["pending", "delivered", "failed"]
STATUSES: tuple[DeliveryStatus, ...] = ("pending", "delivered", "failed")
MOST_LISTED = 1000
_ID = re.compile(r"whd_[0-9a-f]{1,64}_[0-9]{1,20}_[0-9]{1,20}")
_CURSOR = re.compile(r"([0-9]{1,12}\.[0-9]{1,6})-(" + _ID.pattern + ")")
_CHUNK = 200
_MOST_ENTRIES = 100
"""Entries of the outbox that one call moves."""


class DeliveryAttempt(BaseModel):
    """One call of the receiver."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: datetime
    status: int | None = None
    """HTTP status of the answer; None: there was none."""
    ms: int = 0
    error: str = ""
    """Short reason why the call failed; empty: it did not."""


class Delivery(BaseModel):
    """One event of a job that is, was or could not be told to a receiver."""

    model_config = ConfigDict(frozen=True)

    id: str
    """The `webhook-id` of every attempt."""
    job_id: str
    tenant: str | None
    event: str
    url: str
    """URL that is called, without its query."""
    status: DeliveryStatus
    created_at: datetime
    """End of the job."""
    next_at: datetime | None
    """Time of the next attempt; None: there is none."""
    attempts: int
    log: tuple[DeliveryAttempt, ...]
    """The last attempts, oldest first."""


@dataclass(frozen=True)
class DeliveryPage:
    """Some deliveries, newest first, and the cursor of the next page."""

    deliveries: list[Delivery]
    next_cursor: str | None


@dataclass(frozen=True)
class Leased:
    """A delivery that this gateway is to make."""

    id: str
    url: str
    tenant: str | None
    attempts: int
    """Number of this attempt, the first is 1."""
    is_gone: bool
    """The URL has answered 410 to the tenant's earlier delivery."""
    is_unproven: bool
    """The receiver's last call failed, or this is its first."""
    body: bytes
    """The event as JSON, the same in each attempt."""
    job_id: str = ""
    traceparent: str = ""
    """The span of the job's caller, as `TraceContext` parses it."""


@dataclass(frozen=True)
class Taken:
    """Deliveries for this gateway, and when to come back."""

    deliveries: Sequence[Leased]
    has_moved: bool
    """Entries were moved from the outbox, where there may be more."""
    wait_s: float
    """Time until the next delivery is due; infinite: none is known."""


@dataclass(frozen=True)
class Outcome:
    """The end of an attempt."""

    status: Literal["delivered", "retry", "failed"]
    attempt: DeliveryAttempt
    delay_s: float = 0.0
    """Time until the next attempt, for `retry`."""
    is_gone: bool = False
    """The receiver wants no more calls at this URL."""


@cache
def _load(script: str) -> str:
    """Returns a script's text, behind that of the functions that all share."""
    folder = files("videoqa.gateway.webhooks") / "lua"
    return (folder / "common.lua").read_text() + (folder / f"{script}.lua").read_text()


class DeliveryStore:
    """The deliveries of one prefix. Thread-safe."""

    def __init__(self, client: redis.Redis, *, url: str, prefix: str) -> None:
        self._redis = client
        self._url = url
        self._prefix = prefix
        self._scripts = {
            name: client.register_script(_load(name)) for name in ("take", "settle", "replay")
        }

    def _run(self, script: str, *args: str | float) -> Any:
        with translate_redis_errors(self._url):
            return self._scripts[script](args=[self._prefix, *args])

    # -- a gateway's half

    def take(self, count: int, *, unproven: int, per_receiver: int, lease_s: float) -> Taken:
        """Leases deliveries whose turn it is, at most one of a receiver, and moves entries of the outbox.

        A lease that ends unanswered makes its delivery due again, so that a gateway that dies loses none.

        Arguments:
            unproven: most of them whose receiver is new, or failed the last time.
            per_receiver: most that are under way to a proven receiver, from all gateways; to another one it is one.
        """
        moved, wait_s, *taken = self._run(
            "take", count, unproven, per_receiver, lease_s, _MOST_ENTRIES
        )
        found = []
        for delivery_id, fields, is_gone, is_unproven in taken:
            try:
                found.append(
                    _make_leased(_pair(fields), is_gone=is_gone == 1, is_unproven=is_unproven == 1)
                )
            except (KeyError, ValueError, TypeError, OverflowError, OSError):
                self._drop(str(delivery_id), per_receiver)
        return Taken(found, has_moved=int(moved) > 0, wait_s=float(wait_s or "inf"))

    def _drop(self, delivery_id: str, per_receiver: int) -> None:
        """Ends a delivery that a newer release or another program wrote."""
        log_events.DELIVERY_UNREADABLE.log(log, delivery_id=printable(delivery_id))
        attempt = DeliveryAttempt(at=datetime.now(UTC), error="unreadable")
        self.settle(delivery_id, Outcome("failed", attempt), per_receiver=per_receiver)

    def settle(self, delivery_id: str, outcome: Outcome, *, per_receiver: int) -> None:
        """Notes the end of an attempt, and when the next one is due."""
        self._run(
            "settle",
            delivery_id,
            outcome.status,
            outcome.delay_s,
            outcome.attempt.model_dump_json(),
            per_receiver,
            int(outcome.is_gone),
        )

    # -- the owner's half

    def replay(self, delivery_id: str, tenant: str | None) -> Delivery:
        """Makes a delivery due again, under its id, with all its attempts; raises DeliveryNotFound.

        Arguments:
            tenant: the only tenant whose deliveries there are; None: all.
        """
        if not _ID.fullmatch(delivery_id) or not self._run("replay", delivery_id, tenant or ""):
            raise _make_unknown(delivery_id)
        return self.get(delivery_id, tenant)

    def get(self, delivery_id: str, tenant: str | None) -> Delivery:
        """Returns a delivery; raises DeliveryNotFound."""
        found = self._read([delivery_id], tenant) if _ID.fullmatch(delivery_id) else []
        if not found:
            raise _make_unknown(delivery_id)
        return found[0]

    def count(self, tenant: str | None = None) -> dict[str, int]:
        """Counts the deliveries of a tenant or of all by their status, in one round trip."""
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for status in STATUSES:
                pipe.zcard(f"{self._prefix}:hooks:list:{status}:{_quote(tenant or '')}")
            found = execute_each(pipe)
        return {
            status: number if isinstance(number, int) else 0
            for status, number in zip(STATUSES, found, strict=True)
        }

    def find(
        self,
        tenant: str | None,
        *,
        status: DeliveryStatus | None = None,
        job_id: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> DeliveryPage:
        """Returns deliveries by the time of their job's end, newest first.

        Raises:
            InvalidRequest: the cursor is none of a page's, or the limit is too large.
        """
        if not 1 <= limit <= MOST_LISTED:
            raise InvalidRequest(f"got limit={limit}, expected 1 to {MOST_LISTED}", param="limit")
        place = _parse_cursor(cursor) if cursor is not None else (float("inf"), "")
        if job_id is not None:
            keys = [f"{self._prefix}:hooks:job:{job_id}"]
        else:
            keys = [
                f"{self._prefix}:hooks:list:{one}:{_quote(tenant or '')}"
                for one in (STATUSES if status is None else (status,))
            ]
        # Both are ordered by time and then id, as a sorted set of Redis is.
        places = heapq.merge(*(self._walk(key, place) for key in keys), reverse=True)
        found: list[Delivery] = []
        while len(found) <= limit:
            ids = list(dict.fromkeys(one for _, one in islice(places, limit + 1)))
            if not ids:
                break
            found += [
                one for one in self._read(ids, tenant) if status is None or one.status == status
            ]
        page = found[:limit]
        if len(found) <= limit:
            return DeliveryPage(page, None)
        return DeliveryPage(page, f"{page[-1].created_at.timestamp():.6f}-{page[-1].id}")

    def _walk(self, key: str, place: tuple[float, str]) -> Iterator[tuple[float, str]]:
        """Yields scores and ids of one key behind a place, in falling order."""
        skipped = 0
        while True:
            top = "+inf" if place[0] == float("inf") else f"{place[0]:.6f}"
            with translate_redis_errors(self._url):
                page = cast(
                    "list[Any]",
                    self._redis.zrevrangebyscore(
                        key, top, "-inf", start=skipped, num=_CHUNK, withscores=True
                    ),
                )
            behind = [at for one, score in page if (at := (float(score), str(one))) < place]
            yield from behind
            if len(page) < _CHUNK:
                return
            # Many that end at the same time: read on behind those that were seen.
            moves = bool(behind) and behind[-1][0] < place[0]
            skipped = 0 if moves else skipped + len(page)
            place = behind[-1] if behind else place

    def _read(self, ids: Sequence[str], tenant: str | None) -> list[Delivery]:
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for one in ids:
                pipe.hgetall(f"{self._prefix}:hooks:delivery:{one}")
            found = pipe.execute(raise_on_error=False)
        shown = (_show(fields) for fields in found if isinstance(fields, dict) and fields)
        return [
            one for one in shown if one is not None and (tenant is None or one.tenant == tenant)
        ]


def _make_unknown(delivery_id: str) -> DeliveryNotFound:
    return DeliveryNotFound(
        f"there is no delivery {delivery_id!r:.120}; `videoqa webhooks list` shows all that are kept"
    )


def _quote(tenant: str) -> str:
    """Spells a tenant in a key, as `quote` of `lua/common.lua` does."""
    return quote_tenant(tenant).replace("|", "%7C")


def _parse_cursor(text: str) -> tuple[float, str]:
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise InvalidRequest(
            f"got cursor={text!r:.120}, expected the `next_cursor` of a page", param="cursor"
        )
    return float(match[1]), match[2]


def _pair(flat: Sequence[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _make_leased(fields: Mapping[str, str], *, is_gone: bool, is_unproven: bool) -> Leased:
    return Leased(
        id=fields["id"],
        url=fields["url"],
        tenant=fields["tenant"] or None,
        attempts=int(fields["attempts"]),
        is_gone=is_gone,
        is_unproven=is_unproven,
        body=make_body(fields),
        job_id=fields["job"],
        traceparent=str(json.loads(fields["webhook"]).get("traceparent") or ""),
    )


def make_body(fields: Mapping[str, str]) -> bytes:
    """Returns the event as JSON, below 20 kB; what a receiver may want to know, and no answer's text."""
    job_id, ended_at = fields["job"], to_datetime(float(fields["at"]))
    base = f"/v1/jobs/{job_id}"
    data: dict[str, Any] = {
        "id": job_id,
        "object": "job",
        "state": fields["state"],
        "attempt": int(fields["attempt"] or 0),
        "tenant": fields["tenant"] or None,
        "created_at": _write_time(fields["created_at"]),
        "finished_at": ended_at.isoformat(),
        **json.loads(fields["webhook"])["job"],
        "failure": _shorten(fields["failure"]),
        "links": {"self": base, "result": f"{base}/result", "events": f"{base}/events"},
    }
    event = {
        "id": fields["id"],
        "object": "event",
        "type": f"job.{fields['state']}",
        "created_at": int(ended_at.timestamp()),
        "timestamp": ended_at.isoformat(),
        "data": data,
    }
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _write_time(text: str) -> str | None:
    return to_datetime(float(text)).isoformat() if text else None


def _shorten(text: str) -> dict[str, Any] | None:
    """Returns a failure for the event; its message may be long."""
    if not text:
        return None
    try:
        found = Failure.model_validate_json(text, extra="ignore")
    except ValidationError:
        return {"code": "internal_error", "message": "", "stage": None, "retryable": False}
    return {
        "code": found.code[:100],
        "message": found.message[:1000],
        "stage": found.stage,
        "retryable": found.retryable,
    }


def _show(fields: Mapping[str, str]) -> Delivery | None:
    """Returns a delivery as its owner sees it; None for a hash that is none."""
    try:
        return Delivery(
            id=fields["id"],
            job_id=fields["job"],
            tenant=fields["tenant"] or None,
            event=f"job.{fields['state']}",
            url=redact_url(fields["url"]),
            status=cast(DeliveryStatus, fields["status"]),
            created_at=to_datetime(float(fields["at"])),
            next_at=to_datetime(float(fields["next_at"])) if "next_at" in fields else None,
            attempts=int(fields["attempts"]),
            log=tuple(
                DeliveryAttempt.model_validate_json(line)
                for line in fields.get("log", "").split("\n")
                if line
            ),
        )
    except (KeyError, ValueError, OverflowError, OSError):
        return None
