"""Doctor: checks of Redis and the fleet, each with its finding and the next step.

The worker adds its own checks (model, device, storage) by the entry point `videoqa.doctor`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from importlib.metadata import entry_points
from typing import Any, cast

import redis

from videoqa import errors
from videoqa.broker import check_broker
from videoqa.cli.gateway_checks import check_gateway
from videoqa.cli.output import Check
from videoqa.cli.tables import format_age
from videoqa.contract import QueueInfo, WorkerInfo
from videoqa.jobs import (
    Ledger,
    SentinelReply,
    check_permissions,
    connect,
    connect_replica,
    make_finder,
    queue_name,
    server_address,
    server_name,
    translate_redis_errors,
)
from videoqa.local_stack import find_stack, state_folder
from videoqa.redaction import redact_text
from videoqa.settings import Settings, unknown_variables

__all__ = ["check_variables", "run_checks"]

OLDEST = (6, 2)
"""First Redis with ZRANDMEMBER, which the scripts call."""
HOUR_S = 3600.0
FULL_SHARE = 0.9
"""Share of Redis' memory from which on it is nearly full: the rest is for a burst of jobs."""
_SENDERS_ERRORS = (
    errors.RequestError, errors.SourceError, errors.SamplingError, errors.PromptTooLong,
    errors.UnsupportedInput, errors.OutputDenied,
)  # fmt: skip
"""Failures that the sender of a job has to mend: wrong inputs, or an output that is not allowed."""


def run_checks(settings: Settings) -> Iterator[Check]:
    """Yields each check when it is done, with those of the worker if that is installed."""
    workers: list[WorkerInfo] = []
    if settings.url is not None:
        yield from check_gateway(settings)
        yield check_variables(os.environ, Settings, similar_only=True)
        return
    if finder := make_finder(settings):
        yield _check_sentinels(finder.ask_all())
    with closing(connect(settings)) as client:
        first, *others = _check_redis(settings, client)
        yield from (first, *others)
        if replica := connect_replica(settings):
            url = settings.redis_read_url or ""
            yield _run_check("reads", lambda: _check_reads(url, replica))
        if settings.broker_url:
            yield _run_check("broker", lambda: _check_broker(settings))
        if first.ok:
            yield _check_permissions(settings, client)
            ledger = Ledger(client, url=settings.redis_url, prefix=settings.prefix)

            def read_workers() -> Check:
                workers.extend(ledger.workers())
                return _check_workers(workers)

            for name, check in (
                ("workers", read_workers),
                ("backlog", lambda: _check_backlog(ledger.queues(), workers, settings.prefix)),
                ("failures", lambda: _check_failures(ledger.count_failures(within_s=HOUR_S))),
            ):
                yield _run_check(name, check)
    points = entry_points(group="videoqa.doctor")
    for point in points:
        run = cast("Callable[[Sequence[WorkerInfo]], Iterator[Check]]", point.load())
        yield from run(workers)
    if not points:
        yield check_variables(os.environ, Settings, similar_only=True)


def _run_check(name: str, check: Callable[[], Check]) -> Check:
    """Returns the check, or a failed one if Redis refuses what it reads: a replica, or a user without rights."""
    try:
        return check()
    except errors.ServiceError as error:
        return _fail(name, error)


def _fail(name: str, error: errors.ServiceError) -> Check:
    found, _, next_step = error.message.rpartition("; ")
    return Check(name, ok=False, found=found, next_step=next_step)


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
        yield _fail("redis", error)
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
    yield _check_memory(info)
    yield _check_replication(info, settings.wait_replicas)
    skew_s = time.time() - (clock[0] + clock[1] / 1e6)
    yield Check(
        "clock",
        ok=abs(skew_s) < 5,
        found=f"{skew_s:+.1f} s from Redis' clock",
        next_step="run NTP on both machines: start_by is compared with Redis' clock",
    )


def _check_sentinels(replies: Sequence[SentinelReply]) -> Check:
    """Checks that all Sentinels of the URL answer and name the same primary."""
    primaries = sorted(
        {f"{reply.primary[0]}:{reply.primary[1]}" for reply in replies if reply.primary}
    )
    silent = [reply for reply in replies if reply.primary is None]
    named = " or ".join(primaries) or "unknown"
    found = f"{len(replies) - len(silent)} of {len(replies)} answer; the primary is {named}"
    return Check(
        "sentinels",
        ok=not silent and len(primaries) == 1,
        found="; ".join([found, *(redact_text(reply.why) for reply in silent)]),
        next_step="start those that are away, and correct the hosts, the name or sentinel_password in "
        "VIDEOQA_REDIS_URL: a majority of them is needed for a failover",
    )


def _check_reads(url: str, replica: redis.Redis) -> Check:
    """Checks that the replica from which clients read follows its primary; closes the connection."""
    with closing(replica), translate_redis_errors(url):
        info = replica.info("replication")
    is_replica = info.get("role") == "slave"
    linked = info.get("master_link_status") == "up"
    said = "a replica that follows its primary" if linked else "a replica that has lost its primary"
    return Check(
        "reads",
        ok=linked or not is_replica,
        found=f"from {server_address(url)}, {said if is_replica else 'which is the primary'}",
        next_step="look at the replica's log: until it has its primary again, clients read the past",
    )


def _check_broker(settings: Settings) -> Check:
    """Checks that a bell would reach the broker, where that is another server than the one of the records."""
    check_broker(settings)
    address = server_address(settings.broker_url or "")
    return Check("broker", ok=True, found=f"takes messages at {address}")


def _check_permissions(settings: Settings, client: redis.Redis) -> Check:
    """Checks that the URL's user may do what a client does; a worker checks its own at its start."""
    try:
        check_permissions(client, settings)
    except errors.RedisUnavailable as error:
        return _fail("permissions", error)
    return Check("permissions", ok=True, found="the user of the URL may do all that a client does")


def _check_memory(info: Mapping[str, Any]) -> Check:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    machine = int(info.get("total_system_memory", 0))
    most = limit or machine
    of_most = f" of {_format_bytes(most)}" if most else ""
    kind = "" if limit else " of its machine; no limit (maxmemory 0)" if machine else "; no limit"
    return Check(
        "memory",
        ok=not most or used < FULL_SHARE * most,
        found=f"{_format_bytes(used)}{of_most}{kind}",
        next_step="raise `maxmemory`, or lower `result_ttl_s` of the jobs: a full Redis takes no more",
    )


def _format_bytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _check_replication(info: Mapping[str, Any], wait_replicas: int) -> Check:
    """Checks that this server is a single primary, and that its replicas follow it, as many as are waited for."""
    if int(info.get("cluster_enabled", 0)):
        return Check(
            "replication",
            ok=False,
            found="cluster mode: the keys of a job would lie on several nodes",
            next_step="use a server without `cluster-enabled`; Sentinel gives failover",
        )
    if info.get("role") != "master":
        primary = f"{info.get('master_host', '?')}:{info.get('master_port', '?')}"
        return Check(
            "replication",
            ok=False,
            found=f"a replica of {primary}, which takes no writes",
            next_step="set VIDEOQA_REDIS_URL to the primary",
        )
    states = [
        str(info[f"slave{n}"].get("state")) for n in range(int(info.get("connected_slaves", 0)))
    ]
    behind = sum(state != "online" for state in states)
    plural = "replica" if len(states) == 1 else "replicas"
    if len(states) - behind < wait_replicas:
        return Check(
            "replication",
            ok=False,
            found=f"primary, {len(states) - behind} {plural} in step, VIDEOQA_WAIT_REPLICAS={wait_replicas}",
            next_step="start replicas, or lower VIDEOQA_WAIT_REPLICAS: until then submits fail with not_replicated",
        )
    return Check(
        "replication",
        ok=not behind,
        found=f"primary, {len(states) or 'no'} {plural}"
        + (f", {behind} of them not in step" if behind else ""),
        next_step="look at the replica's log: a failover to it would lose jobs",
    )


def _check_workers(workers: Sequence[WorkerInfo]) -> Check:
    models = sorted({info.model for info in workers if info.ready})
    found = f"{len(workers)} running, serving {', '.join(models) or 'no model yet'}"
    if dropped := sum(info.messages_dropped for info in workers):
        found += f"; {dropped} messages of the broker were no bells and were dropped"
    next_step = "start one with `videoqa worker`, or everything on this machine with `videoqa up`"
    if workers:
        next_step = "wait until the model is loaded; the worker's log tells how far it is"
    elif find_stack():
        next_step = (
            f"look at {state_folder(os.environ) / 'worker.log'}: `videoqa up` runs its worker"
        )
    return Check("workers", ok=bool(models), found=found, next_step=next_step)


def _check_backlog(
    queues: Sequence[QueueInfo], workers: Sequence[WorkerInfo], prefix: str
) -> Check:
    """Checks that every queue with waiting jobs is paused or has a worker."""
    waiting = [queue for queue in queues if queue.waiting]
    if not waiting:
        return Check("backlog", ok=True, found="no job waits")
    oldest = min(queue.oldest_at for queue in waiting if queue.oldest_at)
    names = [
        f"{queue.waiting} {queue.priority} for {queue.model or 'any model'}"
        + (" (paused)" if queue.paused else "")
        for queue in waiting
    ]
    lost = [queue for queue in waiting if not (queue.paused or queue.workers)]
    return Check(
        "backlog",
        ok=not lost,
        found=f"{', '.join(names)}; the oldest for {format_age(oldest)}",
        next_step=_advise_backlog(lost, workers, prefix),
    )


def _advise_backlog(lost: Sequence[QueueInfo], workers: Sequence[WorkerInfo], prefix: str) -> str:
    """Returns the next step for queues that no ready worker serves: a worker that loads will serve its own."""
    announced = {name for info in workers for name in info.queues}
    unserved = [
        queue for queue in lost if queue_name(prefix, queue.model, queue.priority) not in announced
    ]
    if lost and not unserved:
        return "wait until a worker has loaded the model"
    model = next((queue.model for queue in unserved if queue.model), None)
    start = f"start a worker with VIDEOQA_MODEL={model}" if model else "start a worker"
    return f"{start}: no worker serves them" + ("" if workers else "; none runs at all")


def _check_failures(codes: Mapping[str, int]) -> Check:
    """Checks that no job of the last hour failed by a fault of the fleet."""
    kinds = {code: errors.REGISTRY.get(code, errors.InternalError) for code in codes}
    ours = [
        code
        for code, kind in kinds.items()
        if kind is errors.SpoolFull or not issubclass(kind, _SENDERS_ERRORS)
    ]
    counts = ", ".join(f"{count} {code}" for code, count in codes.items())
    return Check(
        "failures",
        ok=not ours,
        found=f"in the last hour: {counts or 'none'}",
        next_step=f"videoqa dead list --code {ours[0] if ours else ''}",
    )
