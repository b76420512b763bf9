"""Permissions: the commands and keys that a user of Redis needs, and a check of them.

A script in which the server's ACL refuses a command ends in the middle. So a client is checked before its
first submit, a worker at its start, and `deploy/users.conf` has the users; a test holds both to these lists.
"""

from __future__ import annotations

import hashlib
import secrets

import redis

from videoqa.errors import RedisUnavailable
from videoqa.jobs.connection import (
    describe_refusal,
    is_permission_error,
    translate_redis_errors,
)
from videoqa.settings import Settings

__all__ = ["CONSUMING", "PUBLISHING", "RECORDS", "check_permissions"]

RECORDS = (
    "HSET h f 1", "HGET h f", "HMGET h f", "HGETALL h", "HLEN h", "HEXISTS h f", "HINCRBY h n 1",
    "ZADD z 1 m", "ZCARD z", "ZRANGE z 0 0", "ZRANGEBYSCORE z 0 1", "ZREVRANGEBYSCORE z 1 0", "ZRANK z m",
    "ZSCORE z m", "ZCOUNT z 0 1", "ZPOPMIN z", "ZREVRANGE z 0 0", "ZINTERSTORE z 1 z", "ZRANDMEMBER z",
    "ZREMRANGEBYSCORE z 0 1", "ZREM z m",
    "SADD s m", "SMEMBERS s", "SISMEMBER s m", "SREM s m", "SET t 1", "GET t", "GETDEL t", "MGET t", "EXISTS t",
    "EXPIRE t 9", "PERSIST t",
    "XADD x * f 1", "XREAD STREAMS x 0", "TIME", "HDEL h f",
)  # fmt: skip
"""Harmless calls of all commands of the ledger; a word of one small letter stands for a key."""
OUTSIDE_SCRIPTS = ("MULTI", "EXEC", "CLIENT ID", "CLIENT UNBLOCK 0")
"""Harmless calls that no script may make: kombu's and the ledger's, and those of waiting for jobs."""
PUBLISHING = ("LPUSH q m", "LLEN q", "EXISTS q", "SADD b m", "SADD p m", "SMEMBERS b")
"""Those of kombu's for a message, besides MULTI and EXEC."""
CONSUMING = ("BRPOP q 0",)
"""Those of kombu's for taking a message."""

_KEYS = {name: f"{{prefix}}:{{probe}}:{name}" for name in "hzstx"} | {
    "q": "{prefix}.{probe}",
    "b": "_kombu.binding.{prefix}.{probe}",
    "p": "_kombu.binding_permanent.{prefix}.{probe}",
}
_PROBE = """\
local refused = {}
for line in string.gmatch(ARGV[1], '[^\\n]+') do
  local call = {}
  for word in string.gmatch(line, '%S+') do call[#call + 1] = word end
  local reply = redis.pcall(unpack(call))
  if type(reply) == 'table' and reply.err then refused[#refused + 1] = line .. '\t' .. reply.err end
end
return refused
"""


def _find_missing(
    client: redis.Redis, prefix: str, *, publishes: bool, consumes: bool, waits: bool
) -> list[str]:
    """Returns the commands and patterns of keys that the server's ACL refuses; tries all on keys of its own.

    Arguments:
        publishes: also what the broker needs to take messages.
        consumes: also what it needs to hand them to a worker.
        waits: also WAIT, for replicas.
    """
    names = {"prefix": prefix, "probe": f"probe-{secrets.token_hex(8)}"}
    keys = {short: pattern.format(**names) for short, pattern in _KEYS.items()}
    calls = [*RECORDS, *(PUBLISHING if publishes else ()), *(CONSUMING if consumes else ())]
    lines = [_name_keys(call, keys) for call in calls]
    used = [key for key in keys.values() if any(key in line.split() for line in lines)]
    lines += [
        f"{command} {key}{rest}"
        for command, rest in (("EXPIRE", " 60"), ("DEL", ""))
        for key in used
    ]
    pipe = client.pipeline(transaction=False)
    if consumes:
        pipe.brpop(keys["q"], timeout=0.01)
    for call in OUTSIDE_SCRIPTS:
        pipe.execute_command(*call.split())  # type: ignore[no-untyped-call]
    if waits:
        pipe.execute_command("WAIT", 0, 1)  # type: ignore[no-untyped-call]
    pipe.script_load(_PROBE)
    pipe.evalsha(hashlib.sha1(_PROBE.encode(), usedforsecurity=False).hexdigest(), 0, "")
    pipe.eval(_PROBE, 0, "\n".join(lines))
    *replies, refused = pipe.execute(raise_on_error=False)
    popped = replies.pop(0) if consumes else None
    failed = [reply for reply in [*replies, refused] if isinstance(reply, Exception)]
    if besides := [str(error) for error in failed if is_permission_error(error)]:
        return besides
    if isinstance(refused, Exception):
        raise refused
    found: dict[str, None] = {}
    for line, _, said in (text.partition("\t") for text in refused):
        if is_permission_error(Exception(said)):
            key = next((word for word in line.split() if word in used), None)
            is_key = key is not None and "key" in said.partition("script")[2]
            found[key.partition(names["probe"])[0] + "*" if is_key and key else line.split()[0]] = (
                None
            )
    if isinstance(popped, Exception) and is_permission_error(popped) and "command" in str(popped):
        found["BRPOP"] = None  # before Redis 7.2 no script may call it
    return list(found)


def _name_keys(call: str, keys: dict[str, str]) -> str:
    words = call.split()
    # The first word that names a key is one; other small letters are fields and members.
    short = next((word for word in words if word in keys), None)
    return " ".join(keys[word] if word == short and short else word for word in words)


def check_permissions(client: redis.Redis, settings: Settings, *, consumes: bool = False) -> None:
    """Raises RedisUnavailable if the user of the URL lacks a command or a key.

    Arguments:
        consumes: it is a worker's user, which also takes messages.
    """
    has_broker = settings.broker_url is None
    with translate_redis_errors(settings.redis_url):
        missing = _find_missing(
            client,
            settings.prefix,
            publishes=has_broker,
            consumes=has_broker and consumes,
            waits=settings.wait_replicas > 0,
        )
    if missing:
        raise RedisUnavailable(describe_refusal(", ".join(missing), settings.redis_url))
