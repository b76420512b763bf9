"""FileIndex: the records of all files of one prefix in Redis, and the bytes that are charged to their tenants.

A file is `uploading`, then `ready`. Once it is over it is `expired`, and once its owner has deleted it `deleted`; its
bytes then stay for as long as a job or a batch uses them. Each change is one script, so that the sum of the charges is
right whoever dies in between; `due` has the time at which the sweep looks at a file again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import redis
from pydantic import BaseModel, ConfigDict, ValidationError

from videoqa.contract import FINAL_STATES
from videoqa.gateway.files.names import read_time_ms
from videoqa.jobs import Keys, execute_each, quote_tenant, translate_redis_errors

__all__ = ["Entry", "FileIndex", "FileRecord", "Purpose", "QuotaReached", "State"]

State = Literal["uploading", "ready", "expired", "deleted"]
Purpose = Literal["batch", "vision", "user_data", "batch_output"]

TOMBSTONE_S = 7 * 86400
"""Time for which an expired file is told from an unknown one."""
USED_S = 30 * 86400
"""Longest time for which a use keeps the bytes of a file that was deleted."""
SUBMITTING_S = 60
"""Time for which a file is in use by a job that is about to be submitted."""
_SUBMITTING = "submitting"
_PAGE = 1000

_CHANGE = """\
-- KEYS: record, usage, due, lists... ARGV: id, tenant, state before, state after, charge, quota of all, quota of the
-- tenant, due time, info, lifetime in s, creation in ms. An empty state is no record. -> ok, state, all or tenant
if (redis.call('HGET', KEYS[1], 'state') or '') ~= ARGV[3] then return 'state' end
local own = 'tenant:' .. ARGV[2]
local before = tonumber(redis.call('HGET', KEYS[1], 'charge') or '') or 0
local more = tonumber(ARGV[5]) - before
local function used(field) return tonumber(redis.call('HGET', KEYS[2], field) or '') or 0 end
if more > 0 then
  if used('all') + more > tonumber(ARGV[6]) then return 'all' end
  if used(own) + more > tonumber(ARGV[7]) then return 'tenant' end
end
local total = string.format('%.0f', math.max(0, used('all') + more))
local of_own = math.max(0, used(own) + more)
redis.call('HSET', KEYS[2], 'all', total)
if of_own > 0 then redis.call('HSET', KEYS[2], own, string.format('%.0f', of_own))
else redis.call('HDEL', KEYS[2], own) end
if ARGV[4] == '' then redis.call('DEL', KEYS[1])
else
  redis.call('HSET', KEYS[1], 'state', ARGV[4], 'charge', ARGV[5])
  if ARGV[9] ~= '' then redis.call('HSET', KEYS[1], 'info', ARGV[9]) end
  if ARGV[10] ~= '' then redis.call('EXPIRE', KEYS[1], ARGV[10]) end
end
if ARGV[8] == '' then redis.call('ZREM', KEYS[3], ARGV[1]) else redis.call('ZADD', KEYS[3], ARGV[8], ARGV[1]) end
for n = 4, #KEYS do
  if ARGV[4] == 'ready' then redis.call('ZADD', KEYS[n], ARGV[11], ARGV[1])
  else redis.call('ZREM', KEYS[n], ARGV[1]) end
end
return 'ok'
"""


class QuotaReached(Exception):
    """The bytes do not fit into what the tenant, or all of them, may store."""

    def __init__(self, of: str) -> None:
        super().__init__(of)
        self.is_tenants = of == "tenant"


class FileRecord(BaseModel):
    """A file, without its bytes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    tenant: str | None = None
    """None: an operator's, which no tenant reaches."""
    filename: str
    purpose: Purpose
    bytes: int
    created_at: int
    expires_at: int | None = None
    """Seconds since 1970; None: never."""
    name: str
    """Name of its object below its id."""


@dataclass(frozen=True)
class Entry:
    """A record as it stands in Redis, with its state."""

    state: State
    charge: int
    record: FileRecord

    @property
    def is_over(self) -> bool:
        """True once its time is over, also if the sweep has not been there yet."""
        expires_at = self.record.expires_at
        return self.state == "expired" or (expires_at is not None and expires_at <= time.time())


class FileIndex:
    """The records of one prefix. Thread-safe."""

    def __init__(self, client: redis.Redis, *, url: str, prefix: str) -> None:
        self._redis = client
        self._url = url
        self._prefix = prefix
        self._keys = Keys(prefix)
        self._usage = f"{prefix}:files:usage"
        self._due = f"{prefix}:files:due"
        self._lease = f"{prefix}:files:sweep"
        self._script = client.register_script(_CHANGE)

    def _file(self, file_id: str) -> str:
        return f"{self._prefix}:file:{file_id}"

    def _users(self, file_id: str) -> str:
        return f"{self._prefix}:file:users:{file_id}"

    def _list(self, tenant: str | None, purpose: str) -> str:
        """Returns the key of a list of ready files; `*` in place of a tenant or purpose: of all."""
        owner = "*" if tenant is None else f"={quote_tenant(tenant)}"
        return f"{self._prefix}:files:list:{owner}:{purpose}"

    def change(
        self,
        record: FileRecord,
        before: State | None,
        after: State | None,
        *,
        charge: int,
        due_s: float | None,
        most: int = 0,
        most_of_tenant: int = 0,
    ) -> bool:
        """Changes a file's state and charge; returns False if its state is another one than `before`.

        Arguments:
            charge: bytes that count for its tenant from now on; no more than before if the quotas are not given.
            due_s: time at which the sweep looks at it; None: never.

        Raises:
            QuotaReached
        """
        lists = [
            self._list(owner, purpose)
            for owner in {None, record.tenant}
            for purpose in ("*", record.purpose)
        ]
        has_ended = after in ("expired", None) and due_s is None
        with translate_redis_errors(self._url):
            reply = self._script(
                keys=[self._file(record.id), self._usage, self._due, *lists],
                args=[
                    record.id,
                    record.tenant or "",
                    before or "",
                    after or "",
                    charge,
                    most,
                    most_of_tenant,
                    "" if due_s is None else due_s,
                    record.model_dump_json(),
                    TOMBSTONE_S if has_ended else "",
                    read_time_ms(record.id),
                ],
            )
        if reply in ("all", "tenant"):
            raise QuotaReached(str(reply))
        return bool(reply == "ok")

    def find(self, file_id: str, *, uses: bool = False) -> Entry | None:
        """Returns a file's entry; None if there is none that can be read.

        Arguments:
            uses: a job with it is about to be submitted, so its bytes stay for a minute at least.
        """
        return self._read([file_id], uses=uses)[0]

    def _read(self, ids: Sequence[str], *, uses: bool = False) -> list[Entry | None]:
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for file_id in ids:
                pipe.hmget(self._file(file_id), "state", "charge", "info")
            if uses:
                for file_id in ids:
                    pipe.zadd(self._users(file_id), {_SUBMITTING: time.time() + SUBMITTING_S})
                    pipe.expire(self._users(file_id), USED_S)
            found = execute_each(pipe)[: len(ids)]
        return [_make_entry(each) for each in found]

    def list_ready(
        self,
        tenant: str | None,
        *,
        purpose: str | None = None,
        after: str | None = None,
        limit: int,
        newest_first: bool = True,
    ) -> tuple[list[FileRecord], bool]:
        """Returns up to `limit` ready files behind `after`, which may have gone since, and True if there are more.

        Raises:
            ValueError: `after` is no id.
        """
        key = self._list(tenant, purpose or "*")
        at: Any = None if after is None else read_time_ms(after)
        found: list[FileRecord] = []
        start = 0
        while len(found) <= limit:
            with translate_redis_errors(self._url):
                if newest_first:
                    bounds = ("+inf" if at is None else at, "-inf")
                    reply = self._redis.zrevrangebyscore(key, *bounds, start=start, num=_PAGE)
                else:
                    bounds = ("-inf" if at is None else at, "+inf")
                    reply = self._redis.zrangebyscore(key, *bounds, start=start, num=_PAGE)
            page = cast("list[str]", reply)
            start += len(page)
            ids = [each for each in page if after is None or (each < after) is newest_first]
            entries = self._read([each for each in ids if each != after])
            found += [
                entry.record
                for entry in entries
                if entry is not None and entry.state == "ready" and not entry.is_over
            ]
            if len(page) < _PAGE:
                break
        return found[:limit], len(found) > limit

    def use(self, file_id: str, user: str) -> None:
        """Keeps the bytes of a file for a job, until that is final, or for a batch, until `end_use`."""
        with translate_redis_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            pipe.zadd(self._users(file_id), {user: time.time() + USED_S})
            pipe.expire(self._users(file_id), USED_S)
            pipe.execute()

    def end_use(self, file_id: str, user: str) -> None:
        """Ends the use of a file by a batch."""
        with translate_redis_errors(self._url):
            self._redis.zrem(self._users(file_id), user)

    def is_used(self, file_id: str, now_s: float) -> bool:
        """Tells if a job that is not final or a batch still needs the bytes; forgets users that do not."""
        key = self._users(file_id)
        with translate_redis_errors(self._url):
            while True:
                found = cast(
                    "list[tuple[str, float]]", self._redis.zrange(key, 0, 99, withscores=True)
                )
                if not found:
                    return False
                pipe = self._redis.pipeline(transaction=False)
                for user, _ in found:
                    pipe.hget(self._keys.job(user), "state")
                states = pipe.execute(raise_on_error=False)
                gone = [
                    user
                    for (user, until), state in zip(found, states, strict=True)
                    if until < now_s
                    or state in FINAL_STATES
                    or (state is None and user.startswith("job_"))
                ]
                if len(gone) < len(found):
                    return True
                self._redis.zrem(key, *gone)

    def forget_uses(self, file_id: str) -> None:
        with translate_redis_errors(self._url):
            self._redis.delete(self._users(file_id))

    def list_due(self, now_s: float) -> list[str]:
        """Returns up to 100 ids that the sweep is to look at."""
        with translate_redis_errors(self._url):
            found = self._redis.zrangebyscore(self._due, "-inf", now_s, start=0, num=100)
        return cast("list[str]", found)

    def set_due(self, file_id: str, due_s: float | None) -> None:
        with translate_redis_errors(self._url):
            if due_s is None:
                self._redis.zrem(self._due, file_id)
            else:
                self._redis.zadd(self._due, {file_id: due_s})

    def take_lease(self, name: str, seconds: int) -> bool:
        """Takes the lease of one kind of sweep, which ends by itself; False if another gateway has it."""
        with translate_redis_errors(self._url):
            return bool(self._redis.set(f"{self._lease}:{name}", 1, nx=True, ex=seconds))


def _make_entry(reply: Any) -> Entry | None:
    """Returns the entry of a reply; None for a record that is missing or that somebody broke."""
    if isinstance(reply, Exception) or None in reply:
        return None
    state, charge, info = reply
    if state not in get_args(State):
        return None
    try:
        return Entry(state, int(charge), FileRecord.model_validate_json(info))
    except (ValidationError, ValueError):
        return None
