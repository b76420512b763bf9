"""Doctor: checks of Redis and the fleet, each with its finding and the next step.

The worker adds its own checks (model, device, storage) by the entry point `videoqa.doctor`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import cast

import redis

from videoqa import errors
from videoqa.cli.output import Check
from videoqa.jobs import (
    Ledger,
    check_permissions,
    connect,
    server_address,
    server_name,
    translate_redis_errors,
)
from videoqa.settings import Settings, unknown_variables

__all__ = ["check_variables", "run_checks"]

OLDEST = (6, 2)
"""First Redis with ZRANDMEMBER, which the scripts call."""


def run_checks(settings: Settings) -> list[Check]:
    """Returns the results of all checks, with those of the worker if that is installed."""
    client = connect(settings)
    found = list(_check_redis(settings, client))
    if found[0].ok:
        found.append(_check_permissions(settings, client))
        found.append(_check_workers(settings, client))
    client.close()
    points = entry_points(group="videoqa.doctor")
    for point in points:
        found.extend(cast("Callable[[], list[Check]]", point.load())())
    if not points:
        found.append(check_variables(os.environ, Settings, similar_only=True))
    return found


def check_variables(
    environ: Mapping[str, str], settings: type[Settings], *, similar_only: bool = False
) -> Check:
    """Checks that every VIDEOQA_* variable is a setting; see `unknown_variables`."""
    mistakes = unknown_variables(environ, settings.table(), similar_only=similar_only)
    return Check(
        "variables",
        ok=not mistakes,
        found="; ".join(mistakes) or "every VIDEOQA_* variable is a setting",
        next_step="correct the name: the variable has no effect",
    )


def _check_redis(settings: Settings, client: redis.Redis) -> Iterator[Check]:
    try:
        with translate_redis_errors(settings.redis_url):
            info = client.info()
            clock = client.time()
    except errors.ServiceError as error:
        next_step = "videoqa up, or correct VIDEOQA_REDIS_URL"
        yield Check("redis", ok=False, found=str(error), next_step=next_step)
        return
    version = tuple(int(part) for part in str(info.get("redis_version", "0")).split(".")[:2])
    yield Check(
        "redis",
        ok=version >= OLDEST,
        found=f"{server_name(info)} at {server_address(settings.redis_url)}",
        next_step=f"use Redis {OLDEST[0]}.{OLDEST[1]} or later, or Valkey",
    )
    yield Check(
        "persistence",
        ok=bool(info.get("aof_enabled")),
        found=f"append-only file is {'on' if info.get('aof_enabled') else 'off'}",
        next_step="set `appendonly yes`, or a restart of Redis loses jobs (see deploy/valkey.conf)",
    )
    policy = str(info.get("maxmemory_policy"))
    yield Check(
        "eviction",
        ok=policy == "noeviction",
        found=f"maxmemory-policy {policy}",
        next_step="set `maxmemory-policy noeviction`, or a full Redis drops jobs silently",
    )
    skew_s = time.time() - (clock[0] + clock[1] / 1e6)
    yield Check(
        "clock",
        ok=abs(skew_s) < 5,
        found=f"{skew_s:+.1f} s from Redis' clock",
        next_step="run NTP on both machines: start_by is compared with Redis' clock",
    )


def _check_permissions(settings: Settings, client: redis.Redis) -> Check:
    """Checks that the URL's user may do what a client does; a worker checks its own at its start."""
    try:
        check_permissions(
            client,
            url=settings.redis_url,
            prefix=settings.prefix,
            publishes=settings.broker_url is None,
        )
        found, ok = "the user of VIDEOQA_REDIS_URL may do all that a client does", True
    except errors.RedisUnavailable as error:
        found, ok = str(error), False
    return Check(
        "permissions", ok=ok, found=found, next_step="see deploy/users.conf, then ACL SETUSER"
    )


def _check_workers(settings: Settings, client: redis.Redis) -> Check:
    workers = Ledger(client, url=settings.redis_url, prefix=settings.prefix).workers()
    models = sorted({info.model for info in workers if info.ready})
    found = f"{len(workers)} running, serving {', '.join(models) or 'no model yet'}"
    if dropped := sum(info.messages_dropped for info in workers):
        found += f"; {dropped} messages of the broker were no bells and were dropped"
    return Check(
        "workers",
        ok=bool(models),
        found=found,
        next_step="start one with `videoqa worker`, or everything on this machine with `videoqa up`",
    )
