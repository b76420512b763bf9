"""BatchStore: the records of all batches of one prefix in Redis, and who moves each of them on.

A gateway takes a batch that is due, which gives it a lease; `due` has the time at which the lease ends. Whoever holds
it writes under its own name, so that a process that was away for longer than its lease changes nothing. Of a batch's
lines Redis holds a number for each part that is stored, not the lines.
"""

from __future__ import annotations

import builtins
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast, get_args

import redis
from pydantic import ValidationError

from videoqa.gateway.batches.record import (
    ENDED,
    Batch,
    BatchRecord,
    BatchStatus,
    LineError,
    Tally,
)
from videoqa.gateway.files.names import read_time_ms
from videoqa.jobs import execute_each, translate_redis_errors

__all__ = ["LEASE_S", "BatchStore", "Part", "write_errors", "write_tally"]

LEASE_S = 15
KEPT_S = 30 * 86400
"""Time for which an ended batch can be looked at."""
_PAGE = 200

_CREATE = """\
-- KEYS: batch, due, lists. ARGV: id, record, time of its id, time. It does nothing if there is such a batch.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'info', ARGV[2], 'status', 'validating')
for n = 3, #KEYS do redis.call('ZADD', KEYS[n], ARGV[3], ARGV[1]) end
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[1])
return 1
"""
_MOVE = """\
-- KEYS: batch, due. ARGV: id, statuses before, status after, holder or '', time, due time, lifetime or '', fields.
-- Without a holder, the lease of whoever has the batch stays as it is.
-- -> ok, lost, or the status
local status = redis.call('HGET', KEYS[1], 'status')
if ARGV[4] ~= '' and redis.call('HGET', KEYS[1], 'holder') ~= ARGV[4] then return 'lost' end
if not string.find(ARGV[2], ' ' .. (status or 'none') .. ' ', 1, true) then return status or 'none' end
redis.call('HSET', KEYS[1], 'status', ARGV[3], 'at:' .. ARGV[3], ARGV[5], unpack(ARGV, 8))
if ARGV[4] == '' then redis.call('ZADD', KEYS[2], 'NX', ARGV[6], ARGV[1])
else redis.call('ZADD', KEYS[2], ARGV[6], ARGV[1]) end
if ARGV[7] ~= '' then redis.call('EXPIRE', KEYS[1], ARGV[7]) end
return 'ok'
"""
_TAKE = """\
-- KEYS: due. ARGV: prefix of batches, time, lease, holder -> id of a batch that is due, or ''
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[2], 'LIMIT', 0, 20)) do
  local info = redis.pcall('HGET', ARGV[1] .. id, 'info')
  if type(info) == 'string' then
    redis.call('HSET', ARGV[1] .. id, 'holder', ARGV[4])
    redis.call('ZADD', KEYS[1], ARGV[2] + ARGV[3], id)
    return id
  end
  redis.call('ZREM', KEYS[1], id)
end
return ''
"""
_HOLD = """\
-- KEYS: batch, due. ARGV: id, holder, due time, fields -> the status, or 'lost'
if redis.call('HGET', KEYS[1], 'holder') ~= ARGV[2] then return 'lost' end
local status = redis.call('HGET', KEYS[1], 'status')
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then return status end -- it is closed
if #ARGV > 3 then redis.call('HSET', KEYS[1], unpack(ARGV, 4)) end
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
return status
"""


@dataclass(frozen=True)
class Part:
    """A stored part of a batch's output."""

    name: str
    tally: Tally


def _parse_part(text: str) -> Part | None:
    """Returns a part; None for one that somebody broke."""
    try:
        found = json.loads(text)
        return Part(found["name"], Tally(**found["tally"]))
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


class BatchStore:
    """The batches of one prefix. Thread-safe."""

    def __init__(self, client: redis.Redis, *, url: str, prefix: str) -> None:
        self._redis = client
        self._url = url
        self._prefix = prefix
        self._due = f"{prefix}:batches:due"
        self._create = client.register_script(_CREATE)
        self._move = client.register_script(_MOVE)
        self._take = client.register_script(_TAKE)
        self._hold = client.register_script(_HOLD)

    def _batch(self, batch_id: str) -> str:
        return f"{self._prefix}:batch:{batch_id}"

    def _parts(self, batch_id: str) -> str:
        return f"{self._prefix}:batch:parts:{batch_id}"

    def _list(self, tenant: str | None) -> str:
        """Returns the key of a tenant's batches; None: of all."""
        return f"{self._prefix}:batches:list:{'*' if tenant is None else '=' + tenant}"

    # -- callers

    def create(self, record: BatchRecord, *, call: str, body: str, joins: bool) -> str | None:
        """Records a batch, once for a call that is repeated.

        Arguments:
            call: digest of the caller and its idempotency key, or of its whole body.
            body: digest of the request.
            joins: an earlier call may have made it.

        Returns:
            Its id, or that of the batch which the same call has made before; None: that had another body.
        """
        known = f"{self._prefix}:batch:call:{call}"
        with translate_redis_errors(self._url):
            mine = f"{record.id} {body}"
            if not self._redis.set(known, mine, nx=joins, ex=86_400):
                found = cast("str | None", self._redis.get(known)) or mine
                batch_id, _, other = found.partition(" ")
                if other != body:
                    return None
                if self._redis.exists(self._batch(batch_id)):
                    return batch_id
                record = record.model_copy(update={"id": batch_id})  # that call was killed
            lists = [self._list(owner) for owner in {None, record.tenant}]
            self._create(
                keys=[self._batch(record.id), self._due, *lists],
                args=[record.id, record.model_dump_json(), read_time_ms(record.id), time.time()],
            )
        return record.id

    def find(self, batch_id: str) -> Batch | None:
        """Returns a batch; None if there is none that can be read."""
        return self._read([batch_id])[0]

    def _read(self, ids: Sequence[str]) -> list[Batch | None]:
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for batch_id in ids:
                pipe.hgetall(self._batch(batch_id))
            found = execute_each(pipe)
        return [_make_batch(reply) for reply in found]

    def list(
        self, tenant: str | None, *, after: str | None, limit: int
    ) -> tuple[list[Batch], bool]:
        """Returns up to `limit` batches, the newest first, and True if there are more.

        Arguments:
            after: id of the last one of the page before, which may have gone since.

        Raises:
            ValueError: it is no id.
        """
        key = self._list(tenant)
        top: Any = "+inf" if after is None else read_time_ms(after)
        found: list[Batch] = []
        start = 0
        while len(found) <= limit:
            with translate_redis_errors(self._url):
                page = cast(
                    "list[str]",
                    self._redis.zrevrangebyscore(key, top, "-inf", start=start, num=_PAGE),
                )
                ids = [each for each in page if after is None or each < after]
                batches = self._read(ids) if ids else []
                gone = [each for each, one in zip(ids, batches, strict=True) if one is None]
                if gone:  # it was kept for as long as it is
                    self._redis.zrem(key, *gone)
            found += [one for one in batches if one is not None]
            start += len(page) - len(gone)
            if len(page) < _PAGE:
                break
        return found[:limit], len(found) > limit

    def cancel(self, batch_id: str) -> str:
        """Begins to cancel a batch; returns `ok`, or the status that forbids it.

        Its holder hears of it when it renews its lease, and ends the batch: it alone knows what it is submitting.
        """
        return self.move(batch_id, ("validating", "in_progress"), "cancelling")

    # -- the holder

    def take(self, holder: str) -> str | None:
        """Takes a batch that is due; returns its id, or None if there is none."""
        with translate_redis_errors(self._url):
            found = self._take(
                keys=[self._due],
                args=[f"{self._prefix}:batch:", time.time(), LEASE_S, holder],
            )
        return str(found) or None

    def count_due(self) -> int:
        """Returns the number of batches that any process may take."""
        with translate_redis_errors(self._url):
            return self._redis.zcount(self._due, "-inf", time.time())

    def hold(
        self,
        batch_id: str,
        holder: str,
        fields: Mapping[str, str] | None = None,
        *,
        for_s: float = LEASE_S,
    ) -> str:
        """Renews the lease, and writes fields; returns the status, or `lost` if another process has taken the batch.

        Arguments:
            for_s: time after which any process may take it; 0 gives it back.
        """
        pairs = [text for pair in (fields or {}).items() for text in pair]
        with translate_redis_errors(self._url):
            return str(
                self._hold(
                    keys=[self._batch(batch_id), self._due],
                    args=[batch_id, holder, time.time() + for_s, *pairs],
                )
            )

    def move(
        self,
        batch_id: str,
        before: Sequence[BatchStatus],
        after: BatchStatus,
        *,
        holder: str = "",
        fields: Mapping[str, str] | None = None,
    ) -> str:
        """Changes the status; returns `ok`, the status it has if that is another one than `before`, or `lost`.

        Arguments:
            holder: only if this process still holds the batch, whose lease is renewed.
        """
        pairs = [text for pair in (fields or {}).items() for text in pair]
        with translate_redis_errors(self._url):
            return str(
                self._move(
                    keys=[self._batch(batch_id), self._due],
                    args=[
                        batch_id,
                        f" {' '.join(before)} ",
                        after,
                        holder,
                        int(time.time()),
                        time.time() + LEASE_S,
                        KEPT_S if after in ENDED else "",
                        *pairs,
                    ],
                )
            )

    # -- parts

    def add_part(self, batch_id: str, number: int, part: Part) -> None:
        """Notes that a part of the output is stored, unless another process was faster."""
        with translate_redis_errors(self._url):
            self._redis.hsetnx(self._parts(batch_id), str(number), json.dumps(asdict(part)))
            self._redis.expire(self._parts(batch_id), KEPT_S)

    def read_parts(self, batch_id: str) -> dict[int, Part]:
        """Returns the parts that are stored."""
        with translate_redis_errors(self._url):
            found = cast("dict[str, str]", self._redis.hgetall(self._parts(batch_id)))
            parts = {number: _parse_part(text) for number, text in found.items()}
            broken = [number for number, part in parts.items() if part is None]
            if broken:  # their lines are collected again
                self._redis.hdel(self._parts(batch_id), *broken)
        return {int(number): part for number, part in parts.items() if part is not None}

    def close(self, batch_id: str) -> None:
        """Drops the parts of an ended batch, of which nothing is left to do."""
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=True)
            pipe.delete(self._parts(batch_id))
            pipe.zrem(self._due, batch_id)
            pipe.execute()

    def find_jobs(self, names: Sequence[str]) -> builtins.list[str | None]:
        """Returns the ids of the jobs that these keys of idempotency in Redis hold."""
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for name in names:
                pipe.hget(name, "id")
            return cast("list[str | None]", pipe.execute())

    def read_drafts(self, batch_id: str) -> builtins.list[str]:
        """Returns the ids of output files that a process may have begun."""
        with translate_redis_errors(self._url):
            found = cast("str | None", self._redis.hget(self._batch(batch_id), "drafts"))
        return found.split() if found else []


def write_tally(tally: Tally) -> dict[str, str]:
    """Returns the field of a batch's hash that has its tally."""
    return {"tally": json.dumps(asdict(tally))}


def write_errors(errors: Sequence[LineError]) -> dict[str, str]:
    """Returns the field of a batch's hash that has its errors."""
    return {"errors": json.dumps([each.model_dump() for each in errors])}


def _make_batch(reply: Any) -> Batch | None:
    if isinstance(reply, Exception) or not isinstance(reply, dict):
        return None
    try:
        status = reply["status"]
        if status not in get_args(BatchStatus):
            return None
        return Batch(
            record=BatchRecord.model_validate_json(reply["info"]),
            status=status,
            times={
                name.removeprefix("at:"): int(value)
                for name, value in reply.items()
                if name.startswith("at:")
            },
            total=int(reply.get("total", 0)),
            tally=Tally(**json.loads(reply.get("tally", "{}"))),
            model=reply.get("model") or None,
            errors=tuple(
                LineError.model_validate(each) for each in json.loads(reply.get("errors", "[]"))
            ),
            output_file_id=reply.get("output_file_id") or None,
            error_file_id=reply.get("error_file_id") or None,
        )
    except (KeyError, TypeError, ValueError, ValidationError, RecursionError):
        return None
