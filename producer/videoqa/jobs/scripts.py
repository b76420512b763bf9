"""Scripts: the texts of `lua/`, and a caller that runs them in one Redis."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Self

import redis

from videoqa.jobs.connection import translate_redis_errors
from videoqa.jobs.keys import Keys
from videoqa.jobs.replication import ReplicaWait
from videoqa.jobs.unreadable import UnreadableLog

__all__ = ["ScriptCaller"]

_EVEN_WHEN_FULL = """local server = redis
local redis = {}
function redis.pcall(...)
  local reply = server.pcall(...)
  local is_full = type(reply) == 'table' and reply.err and string.find(reply.err, 'OOM', 1, true)
  if not is_full then return reply end
  server.call('HDEL', ARGV[1] .. ':dispatch', '')
  return server.pcall(...)
end
function redis.call(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  return server.call(...) -- raises
end
"""
"""Over `maxmemory` Redis refuses a script's first write that needs memory, and none after a
write that needs none. Leases must be renewed and jobs must end even then, or running jobs would
lose their leases one after the other. (From Redis 7 on, `#!lua flags=allow-oom` has the same effect.)
"""
_READING = ("queues", "explain", "select", "count", "dead")
"""Scripts that write nothing, so that a replica runs them as well."""

_OF_ONE_RECORD = ("report", "renew", "checkpoint")
"""Frequent scripts that need `records.lua` alone: making the functions of `common.lua` takes Redis 12 us a call."""
_PARTS = {
    "select": ("selection",),
    "count": ("selection",),
    "cancel": ("callers",),
    "retry": ("callers",),
    "purge": ("callers",),
    "change": ("selection", "callers"),
}
"""Files of functions that stand between `common.lua` and a script."""


@cache
def load_script(name: str) -> str:
    """Returns the text of a script in `lua/`, behind `records.lua` and `common.lua`."""
    folder = files("videoqa.jobs") / "lua"
    begin = "" if name in ("submit", "announce", "note_run", *_READING) else _EVEN_WHEN_FULL
    parts = ["records"] if name in _OF_ONE_RECORD else ["records", "common", *_PARTS.get(name, ())]
    parts.append(name)
    return begin + "".join((folder / f"{part}.lua").read_text() for part in parts)


@cache
def hash_script(name: str) -> str:
    """Returns the SHA-1 of a script, by which Redis knows it."""
    return hashlib.sha1(load_script(name).encode(), usedforsecurity=False).hexdigest()


class ScriptCaller:
    """Runs scripts for one prefix in one Redis. Thread-safe."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        url: str,
        prefix: str = "videoqa",
        wait_replicas: int = 0,
    ) -> None:
        """Makes a caller for the records of all tenants, for workers and operators.

        Arguments:
            wait_replicas: replicas that must have what a call recorded, before it returns.
        """
        self.tenant: str | None = None
        """The only tenant whose records there are; None: those of all."""
        self._redis = client
        self._url = url
        self.keys = Keys(prefix)
        self._replicas = ReplicaWait(wait_replicas, url=url, prefix=prefix)
        self._unreadable = UnreadableLog()

    def for_tenant(self, tenant: str | None) -> Self:
        """Returns a caller for one tenant's records, or for all; both together warn of each unreadable key once."""
        found = copy.copy(self)
        found.tenant = tenant
        return found

    def _run(self, script: str, *args: str | float) -> Any:
        values = [self.keys.prefix, *args]
        with translate_redis_errors(self._url):
            try:
                call = "EVALSHA", hash_script(script), 0, *values
                return self._replicas.run(self._redis, script, *call)
            except redis.exceptions.NoScriptError:
                # Text and call in one: a retry may meet another server, which knows no script yet.
                return self._replicas.run(
                    self._redis, script, "EVAL", load_script(script), 0, *values
                )

    def _run_many(self, script: str, calls: Sequence[Sequence[str | float]]) -> list[Any]:
        """Runs a script with the arguments of each call, in one round trip; an error is the reply of its call."""
        if not calls:
            return []
        pipe = self._redis.pipeline(transaction=False)
        pipe.script_load(load_script(script))  # here: a retry may meet another server
        for args in calls:
            pipe.evalsha(hash_script(script), 0, self.keys.prefix, *args)
        self._replicas.add(pipe, script)
        loaded, *replies = self._replicas.check(script, pipe.execute(raise_on_error=False))
        if isinstance(loaded, Exception):
            raise loaded
        return replies
