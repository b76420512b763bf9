"""Shards, as a prototype: the jobs of one prefix over several Valkeys, by model and tenant.

    python benchmarks/queue/shards.py [--shards 1 2 4] [--jobs 2000] [--json]

No script of the ledger changes, as none touches two jobs but by their model and tenant. `ShardedLedger` is all that
shards take beside a list of URLs: a job's shard is in its id, and a worker claims from all shards in turn. Each
job is submitted, claimed, renewed once and ended; then CPU time of each Valkey's process for a job, of the busiest one,
and the share of claims that found nothing on their shard. Two cores show what a job costs each server, and not how
many jobs a second many servers answer.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any
from zlib import crc32

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib import fleet

from videoqa.contract import JobRequest
from videoqa.jobs import Claim, Ledger, Submission, connect, new_job_id, queue_name
from videoqa.settings import Settings
from videoqa_worker.embedded.redis_server import RedisServer

TENANTS, MODELS = 200, 4
LEASE_S = 60.0


class ShardedLedger:
    """Ledgers of several Valkeys as one. The first two digits of a job's id are those of its shard."""

    def __init__(self, ledgers: Sequence[Ledger]) -> None:
        self._ledgers = ledgers
        self._turns = cycle(range(len(ledgers)))
        self.claims = self.empty_claims = 0

    def submit(self, request: JobRequest) -> str:
        """Records a job on the shard of its model and tenant; jobs of one tenant and model take turns there."""
        number = crc32(f"{request.model} {request.tenant}".encode()) % len(self._ledgers)
        job_id = f"job_{number:02x}{new_job_id().removeprefix('job_')}"
        self._ledgers[number].submit(Submission(job_id, request), start_by_default_s=3600)
        return job_id

    def find(self, job_id: str) -> Ledger:
        """Returns the ledger of a job."""
        return self._ledgers[int(job_id[4:6], 16)]

    def claim(self, queues: Sequence[str]) -> Claim | None:
        """Claims from the shards in turn, until one has a job."""
        for _ in self._ledgers:
            ledger = self._ledgers[next(self._turns)]
            token = secrets.token_urlsafe(8)
            found = ledger.claim(queues, worker="w", lease_s=LEASE_S, token=token)
            self.claims += 1
            if found.claim is not None:
                return found.claim
            self.empty_claims += 1
        return None


@contextmanager
def start(count: int, folder: Path) -> Iterator[list[Ledger]]:
    """Starts so many Valkeys, each with a ledger."""
    with ExitStack() as stack:
        found = []
        for n in range(count):
            server = stack.enter_context(RedisServer(folder / f"{count}-{n}"))
            settings = Settings(redis_url=server.url)
            client = connect(settings)
            stack.callback(client.close)
            found.append(Ledger(client, url=server.url, prefix=settings.prefix))
        yield found


def read_cpu_s(ledgers: Sequence[Ledger]) -> list[float]:
    """Returns CPU seconds of each server."""
    found = [ledger._redis.info("cpu") for ledger in ledgers]
    return [float(cpu["used_cpu_user"] + cpu["used_cpu_sys"]) for cpu in found]  # type: ignore[index]


def measure(count: int, jobs: int, folder: Path) -> dict[str, Any]:
    """Runs the jobs over so many shards."""
    with start(count, folder) as ledgers:
        sharded = ShardedLedger(ledgers)
        models = [fleet.name_model(number) for number in range(1, MODELS + 1)]
        queues = [
            queue_name(ledgers[0].keys.prefix, model, priority)
            for priority in ("interactive", "bulk")
            for model in models
        ]
        before, at_s = read_cpu_s(ledgers), time.perf_counter()
        for n in range(jobs):
            sharded.submit(fleet.make_request(n % TENANTS, 1 + n % MODELS))
        ended = 0
        while claim := sharded.claim(queues):
            ledger = sharded.find(claim.job_id)
            ledger.renew([(claim.job_id, claim.token)], lease_s=LEASE_S)
            fleet.finish(ledger, claim)
            ended += 1
        seconds = time.perf_counter() - at_s
        spent = [b - a for a, b in zip(before, read_cpu_s(ledgers), strict=True)]
        if ended != jobs:
            raise SystemExit(f"{ended} of {jobs} jobs ended")
    return {
        "shards": count,
        "jobs": jobs,
        "server_ms_per_job": sum(spent) / jobs * 1000,
        "busiest_server_ms_per_job": max(spent) / jobs * 1000,
        "jobs_per_cpu_s_of_the_busiest": jobs / max(spent),
        "claims_of_nothing": sharded.empty_claims / sharded.claims,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(count, options.jobs, Path(folder)) for count in options.shards]
    if options.json:
        print(json.dumps({"rows": rows, "load": os.getloadavg()[0]}))
        return
    print(
        "| shards | servers, ms a job | busiest server, ms a job | claims of nothing |\n|---|---|---|---|"
    )
    for row in rows:
        print(
            f"| {row['shards']} | {row['server_ms_per_job']:.3f} | {row['busiest_server_ms_per_job']:.3f} "
            f"| {row['claims_of_nothing']:.1%} |"
        )


if __name__ == "__main__":
    main()
