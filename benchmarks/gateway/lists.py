"""Core calls of the dashboard's pages, among a million queued jobs: time, Redis' time and round trips of each.

    python benchmarks/gateway/lists.py [--queued 1000000] [--dead 200000] [--running 5000] [--calls 40] [--json]

One private Valkey. A queued, a dead and a running job are made by the ledger, and copied within the server by a
script, record by record, into all the lists that they stand in; so the records are true, and are soon there. Each call
is measured at a hundredth of the size as well: where no index is walked it must have as many round trips.
Times are wall times of a client on the same machine; Valkey's is CPU time of its main thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(ROOT / name) for name in ("producer", "worker", "benchmarks/lib", "benchmarks/queue")
]

import redis  # noqa: E402
from scale import serving  # noqa: E402
from server_cost import Meter  # noqa: E402

from videoqa.client import Client  # noqa: E402
from videoqa.contract import Failure  # noqa: E402
from videoqa.jobs import Ledger, queue_name  # noqa: E402

COPY = """
-- prefix, id of a job, number of its first copy, copies, seconds between two, codes -> ids of the first few
-- Copies a record into all sorted sets that it stands in, those of the codes by turns.
local P, id = ARGV[1], ARGV[2]
local rec = redis.call('HGETALL', P .. ':job:' .. id)
local created, queue, tenant, state
for n = 1, #rec, 2 do
  if rec[n] == 'created_at' then created = n + 1 end
  if rec[n] == 'queue' then queue = rec[n + 1] end
  if rec[n] == 'tenant' then tenant = rec[n + 1] end
  if rec[n] == 'state' then state = rec[n + 1] end
  if rec[n] == 'code' then rec.code = n + 1 end
end
local from, codes = tonumber(rec[created]), {}
for code in string.gmatch(ARGV[6], '%S+') do codes[#codes + 1] = code end
local listed = state == 'failed' and 'failed' or 'open'
for n = ARGV[3], ARGV[3] + ARGV[4] - 1 do
  local at = string.format('%.6f', from - n * ARGV[5])
  local copy = string.format('job_%011x%016x', math.floor(at * 1000), n)
  rec[created] = at
  if rec.code then rec[rec.code] = codes[n % #codes + 1] end
  redis.call('HSET', P .. ':job:' .. copy, unpack(rec))
  for _, of in ipairs({'', tenant}) do
    redis.call('ZADD', P .. ':list:' .. listed .. ':' .. of .. ':', at, copy)
    redis.call('ZADD', P .. ':list:any:' .. of .. ':tag=nightly', at, copy)
    if state == 'failed' then
      redis.call('ZADD', P .. ':list:dead:' .. of .. ':', at, copy)
      redis.call('ZADD', P .. ':list:dead:' .. of .. ':' .. codes[n % #codes + 1], at, copy)
    end
  end
  if state == 'queued' then
    redis.call('ZADD', P .. ':waiting:' .. queue, at, copy)
    redis.call('ZADD', P .. ':line:' .. queue .. ':' .. tenant, at, copy)
  elseif state == 'running' then
    redis.call('ZADD', P .. ':running:' .. queue, at, copy)
    redis.call('ZADD', P .. ':leases', at + 1e6, copy)
  end
end
return 1
"""
CODES = ("model_error", "worker_lost", "source_not_found", "job_timeout")
CHUNK = 500
ASKED: Any = {
    "inputs": ["https://videos.example.org/2026/parade.mp4"],
    "questions": ["What does the crowd watch, and who walks in front of the band?"],
    "tags": ["nightly"],
    "tenant": "acme",
    "custom_id": "2026/parade.mp4",
}


@dataclass(frozen=True)
class Size:
    """Jobs of one fleet."""

    queued: int
    dead: int
    running: int


def fill(client: Client, plain: redis.Redis, ledger: Ledger, size: Size) -> None:
    """Makes one job of each kind, and copies it."""
    copy = plain.register_script(COPY)
    queue = queue_name(ledger.keys.prefix, None, "interactive")

    def claim(token: str) -> str:
        client.submit(ASKED)
        found = ledger.claim([queue], worker="gpu-1:1", lease_s=1e6, token=token).claim
        assert found is not None
        return found.job_id

    failed, running = claim("f"), claim("r")
    failure = Failure(code="model_error", message="CUDA error 700 at step 12", attempt=1)
    assert ledger.fail(failed, "f", failure, delay_s=0) == "failed"
    plain.persist(ledger.keys.job(failed))
    queued = client.submit(ASKED).id
    first = 1
    for job_id, count, apart_s in (
        (failed, size.dead, 14 * 86400 / size.dead),
        (running, size.running, 1.0),
        (queued, size.queued, 0.01),
    ):
        for done in range(0, count, CHUNK):
            args = [ledger.keys.prefix, job_id, first + done, min(CHUNK, count - done), apart_s]
            copy(args=[*args, " ".join(CODES)])
        first += count


def list_calls(client: Client) -> Iterator[tuple[str, Callable[[], object], bool]]:
    """Yields the calls of the pages: name, call, and True if it walks an index."""
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    first = client.list(limit=50)
    deep = client.list(limit=1000).next_cursor
    yield "overview: queues", client.queues, False
    yield "overview, dead letters: count_dead", client.count_dead, False
    yield "dead letters: group_dead", lambda: client.group_dead("worker_lost"), False
    yield (
        "dead letters: list of a code's last hour",
        lambda: client.list(code="worker_lost", ended_since=hour_ago, limit=50),
        False,
    )
    yield (
        "dead letters: count of a code's last hour",
        lambda: client.count(code="worker_lost", ended_since=hour_ago),
        False,
    )
    yield "jobs: first page", lambda: client.list(limit=50), False
    yield "jobs: page behind 1,000", lambda: client.list(limit=50, cursor=deep), False
    yield "jobs: running", lambda: client.list(state="running", limit=50), False
    yield "jobs: queued", lambda: client.list(state="queued", limit=50), False
    yield "jobs: failed", lambda: client.list(state="failed", limit=50), False
    yield "jobs: a tenant's", lambda: client.list(tenant="acme", limit=50), False
    yield (
        "jobs: a tag and a state",
        lambda: client.list(tag="nightly", state="queued", limit=50),
        False,
    )
    yield "jobs: count of all", client.count, False
    yield "jobs: by a whole id", lambda: client.list(job_id=first.jobs[0].id), False
    yield (
        "a worker's jobs: running",
        lambda: client.list(state="running", worker="gpu-1:1", limit=50),
        False,
    )
    yield "walk: a custom_id that none has", lambda: client.list(custom_id="x", limit=50), True
    yield (
        "walk: count of queued of a tag",
        lambda: client.count(state="queued", tag="nightly"),
        True,
    )
    yield "walk: a text that none has", lambda: client.list(text="zebra", limit=50), True
    yield "a job: get", lambda: client.get(first.jobs[0].id), False
    yield "bulk: preview of a code", lambda: client.preview_bulk("retry", code="worker_lost"), True


def measure(client: Client, meter: Meter, calls: int) -> dict[str, dict[str, Any]]:
    """Measures each call, so many times."""
    found = {}
    for name, call, walks in list_calls(client):
        call()
        trips: list[int] = []
        with counting_trips(client, trips):
            call()
        cost = meter.measure(lambda _, call=call: call(), calls=calls, most_s=15.0)  # type: ignore[misc]
        times_ms = sorted(1000 * one for one in cost.times_s)
        found[name] = {
            "p50_ms": round(statistics.median(times_ms), 1),
            "p95_ms": round(times_ms[int(0.95 * (len(times_ms) - 1))], 1),
            "valkey_ms": round(cost.server_ms, 2),
            "round_trips": len(trips),
            "walks": walks,
            "calls": len(times_ms),
        }
        print(f"  {name}: {found[name]}", file=sys.stderr)
    return found


class counting_trips:  # noqa: N801 - a context manager
    """Notes each packet that a client sends to Redis."""

    def __init__(self, client: Client, trips: list[int]) -> None:
        self._kind = client._backend.redis.connection_pool.connection_class  # type: ignore[attr-defined]
        self._trips = trips

    def __enter__(self) -> None:
        kind, trips = self._kind, self._trips
        self._send = send = kind.send_packed_command

        def note(connection: Any, command: Any, *args: Any, **options: Any) -> Any:
            trips.append(1)
            return send(connection, command, *args, **options)

        kind.send_packed_command = note

    def __exit__(self, *_: object) -> None:
        self._kind.send_packed_command = self._send


def run(size: Size, calls: int) -> dict[str, Any]:
    """Fills a server and measures the calls."""
    with ExitStack() as stack:
        settings, meter, _ = stack.enter_context(serving())
        client = stack.enter_context(Client(settings=settings))
        plain = stack.enter_context(
            redis.Redis.from_url(settings.redis_url, decode_responses=True, socket_timeout=120)
        )
        plain.config_set("appendonly", "no")  # the copies would fill the log
        ledger = Ledger(plain, url=settings.redis_url, prefix=settings.prefix)
        begun_s = time.monotonic()
        fill(client, plain, ledger, size)
        print(f"{size}: filled in {time.monotonic() - begun_s:.0f} s", file=sys.stderr)
        memory = int(plain.info("memory")["used_memory"])
        return {"memory_bytes": memory, "calls": measure(client, meter, calls)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--queued", type=int, default=1_000_000)
    parser.add_argument("--dead", type=int, default=200_000)
    parser.add_argument("--running", type=int, default=5_000)
    parser.add_argument("--calls", type=int, default=40, help="times that each call is made")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    size = Size(args.queued, args.dead, args.running)
    least = Size(*(max(200, one // 100) for one in (size.queued, size.dead, size.running)))
    small, large = run(least, args.calls), run(size, args.calls)
    found = {"size": vars(size), "load": os.getloadavg()[0], "small": small, "large": large}
    if args.json:
        print(json.dumps(found))
        return
    print(
        "| call | p50, ms | p95, ms | Valkey, ms | round trips | at a hundredth |\n|---|---|---|---|---|---|"
    )
    for name, cost in large["calls"].items():
        print(
            f"| {name} | {cost['p50_ms']} | {cost['p95_ms']} | {cost['valkey_ms']} | {cost['round_trips']} | "
            f"{small['calls'][name]['round_trips']} |"
        )


if __name__ == "__main__":
    main()
