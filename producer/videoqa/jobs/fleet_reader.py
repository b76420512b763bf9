"""Reading from Redis what belongs to no single job: queues, workers, counts of use and of what happened.

Changes nothing; `reader.py` reads jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from typing import Any, cast

from videoqa import errors
from videoqa.contract import (
    QueueInfo,
    UsageBy,
    UsageRow,
    WorkerInfo,
    parse_stored,
    to_datetime,
)
from videoqa.jobs.attention import LATE_S
from videoqa.jobs.connection import execute_each, translate_redis_errors
from videoqa.jobs.event_stream import EventsRead, parse_streams
from videoqa.jobs.fleet_stats import RingsRead, describe_webhooks
from videoqa.jobs.keys import parse_queue_name, queue_name
from videoqa.jobs.rings import MINUTE_FIELDS, Ring
from videoqa.jobs.scripts import ScriptCaller
from videoqa.jobs.selection import DEAD_CODES
from videoqa.jobs.usage import UsageSums

__all__ = ["FleetReader", "parse_clock"]

_EPOCH = date(1970, 1, 1)
GONE_S = 60.0
"""Time after its last word at which a worker is gone, as in `lua/records.lua`."""
MOST_RINGS = 200
"""Most models whose rings are read; scripts make about 50."""
USAGE_CHUNK = 500
"""Hashes of usage that are read in one round trip."""


class FleetReader(ScriptCaller):
    """Reads the queues, workers and counts of one prefix in one Redis; to a tenant, its own. Thread-safe."""

    def queues(self) -> list[QueueInfo]:
        """Returns the queues in which jobs wait or run, that are paused, or that workers serve; by their names.

        For a tenant: those in which its jobs wait, or that workers serve, with its own waiting jobs only.
        """
        return self.read_queues(idle_s=0.0)[0]

    def read_queues(self, *, idle_s: float) -> tuple[list[QueueInfo], bool]:
        """Returns the queues, and whether jobs may be lost or due of which no reaper has made sure for `idle_s`."""
        is_due, *rows = self._run("queues", self.tenant or "", idle_s)
        found = (self._describe_queue(row) for row in sorted(rows))
        return [queue for queue in found if queue is not None], bool(is_due)

    def _describe_queue(self, row: Sequence[Any]) -> QueueInfo | None:
        (
            name,
            waiting,
            tenants,
            paused,
            oldest_at,
            oldest_s,
            running,
            delayed,
            due,
            workers,
            slots,
            start_by_s,
            paused_s,
            served_s,
            all_workers,
            due_s,
        ) = row
        model, priority = parse_queue_name(self.keys.prefix, name)
        if queue_name(self.keys.prefix, model, priority) != name:
            self._unreadable.warn(f"{self.keys.prefix}:queues {name}", "it is no queue's name")
            return None
        return QueueInfo(
            model=model,
            priority=priority,
            waiting=int(waiting),
            running=int(running),
            delayed=int(delayed),
            due=int(due),
            tenants=int(tenants),
            paused=bool(paused),
            workers=int(workers),
            slots=int(slots),
            oldest_at=_parse_oldest(oldest_at),
            oldest_s=_parse_seconds(oldest_s),
            start_by_s=_parse_seconds(start_by_s),
            paused_s=_parse_seconds(paused_s),
            served_s=_parse_seconds(served_s),
            all_workers=int(all_workers),
            due_s=_parse_seconds(due_s),
        )

    def read_usage(self, first_day: date, last_day: date, *, by: UsageBy) -> list[UsageRow]:
        """Returns the counted use of this tenant's jobs, or of all, that ended on these UTC days."""
        days = range((first_day - _EPOCH).days, (last_day - _EPOCH).days + 1)
        sums = UsageSums(by)
        keys = list(self._list_usage(days))
        for start in range(0, len(keys), USAGE_CHUNK):
            chunk = keys[start : start + USAGE_CHUNK]
            with translate_redis_errors(self._url):
                pipe = self._redis.pipeline(transaction=False)
                for day, tenant in chunk:
                    if by in ("day", "tenant"):
                        pipe.hmget(self.keys.usage(day, tenant), "all")
                    else:
                        pipe.hgetall(self.keys.usage(day, tenant))
                replies = execute_each(pipe)
            for (day, tenant), reply in zip(chunk, replies, strict=True):
                if isinstance(reply, Exception):
                    continue  # another type, which the next job's end replaces
                fields = reply if isinstance(reply, dict) else {"all": reply[0]}
                sums.add(fields, day=str(_EPOCH + timedelta(days=day)), tenant=tenant)
        return sums.list_rows()

    def _list_usage(self, days: Sequence[int]) -> Iterator[tuple[int, str]]:
        """Yields the days and tenants that have counters."""
        if self.tenant is not None:
            yield from ((day, self.tenant) for day in days)
            return
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for day in days:
                pipe.smembers(self.keys.tenants(day))
            replies = execute_each(pipe)
        for day, tenants in zip(days, replies, strict=True):
            if not isinstance(tenants, Exception):
                yield from ((day, tenant) for tenant in sorted(tenants))

    def read_rings(self, *, all_of_them: bool) -> RingsRead:
        """Returns the minute rings of all models, with the state of webhook deliveries, at one time.

        Arguments:
            all_of_them: also those of a quarter of an hour, of a day.
        """
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            pipe.time()
            pipe.zrange(self.keys.stats_models, 0, MOST_RINGS - 1)
            time, names = execute_each(pipe)
            now_s = parse_clock(time)
            models = [] if isinstance(names, Exception) else names
            pipe = self._redis.pipeline(transaction=False)
            for model in models:
                if all_of_them:
                    pipe.hgetall(self.keys.stats(model))
                else:
                    pipe.hmget(self.keys.stats(model), MINUTE_FIELDS)
            late = self.keys.deliveries("pending"), "-inf", now_s - LATE_S
            pipe.zcount(*late)
            pipe.zrangebyscore(*late, start=0, num=1, withscores=True)
            pipe.zcount(self.keys.deliveries("failed"), now_s - 86400, "+inf")
            pipe.xread({self.keys.outbox: "0"}, count=1)
            *rings, pending, oldest, given_up, outbox = execute_each(pipe)
        left = {} if isinstance(outbox, Exception) else parse_streams(outbox)
        return RingsRead(
            now_s,
            {
                model: Ring.parse(
                    fields
                    if isinstance(fields, dict)
                    else dict(zip(MINUTE_FIELDS, fields, strict=True))
                )
                for model, fields in zip(models, rings, strict=True)
                if not isinstance(fields, Exception)
            },
            describe_webhooks(
                now_s,
                pending=pending,
                oldest=oldest,
                given_up=given_up,
                first_left=left.get(self.keys.outbox, EventsRead()).last_id,
            ),
        )

    def count_failures(self, *, within_s: float) -> dict[str, int]:
        """Counts the jobs that failed for good within the last seconds, by code, the most frequent in front."""
        rows = self._run("dead", self.tenant or "", within_s, "", *DEAD_CODES)
        counts = Counter({code: row[0] for code, row in zip(DEAD_CODES, rows, strict=True)})
        return {code: count for code, count in counts.most_common() if count}

    def count_ended(self, codes: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
        """Counts all jobs that have ended since there are records, and dead letters by code, in one round trip.

        Returns:
            Ended jobs by state and by `failed CODE`, and kept dead letters by code.
        """
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            pipe.hgetall(self.keys.ended)
            for code in codes:
                pipe.zcard(self.keys.job_list("dead", None, code))
            ended, *dead = execute_each(pipe)
        found: Counter[str] = Counter()
        for name, text in ended.items() if isinstance(ended, dict) else ():
            with suppress(ValueError):
                found[name.partition(" ")[0]] += int(text)
                if " " in name:
                    found[name] += int(text)
        return found, {
            code: count if isinstance(count, int) else 0
            for code, count in zip(codes, dead, strict=True)
        }

    def workers(self) -> list[WorkerInfo]:
        """Returns the workers whose announcements are younger than a minute."""
        with translate_redis_errors(self._url):
            heard = cast(
                "list[tuple[str, float]]",
                self._redis.zrange(self.keys.workers, 0, -1, withscores=True),
            )
            pipe = self._redis.pipeline(transaction=False)
            pipe.time()
            for worker_id, _ in heard:
                pipe.hget(self.keys.worker(worker_id), "info")
            time, *replies = execute_each(pipe)
        now_s = parse_clock(time)
        found = (
            self._parse_worker(worker_id, reply, heard_s=max(0.0, now_s - at_s))
            for (worker_id, at_s), reply in zip(heard, replies, strict=True)
            if reply is not None and now_s - at_s < GONE_S
        )
        return [info for info in found if info is not None]

    def _parse_worker(
        self, worker_id: str, reply: str | Exception, *, heard_s: float
    ) -> WorkerInfo | None:
        try:
            if isinstance(reply, Exception):
                raise errors.InvalidRequest(str(reply))
            info = parse_stored(WorkerInfo, reply)
            return info.model_copy(update={"heard_s": round(min(heard_s, 1e9), 3)})
        except errors.InvalidRequest as error:
            self._unreadable.warn(self.keys.worker(worker_id), error)
            return None


def parse_clock(reply: Any) -> float:
    """Returns the seconds of a reply of TIME."""
    if isinstance(reply, Exception):
        raise reply
    return float(reply[0]) + float(reply[1]) / 1e6


def _parse_seconds(text: str) -> float | None:
    return float(text) if text else None


def _parse_oldest(text: str) -> datetime | None:
    """Parses the time of a job that is not read otherwise, whose record may hold anything."""
    try:
        return to_datetime(float(text)) if text else None
    except (ValueError, OverflowError, OSError):
        return None
