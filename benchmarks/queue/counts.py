"""Cost of the counts and notes that a job leaves: Redis commands, time of Redis' scripts, and memory of the rings.

    python benchmarks/queue/counts.py [JOBS]

Jobs go through the ledger one after the other: submit, claim, three stages, finish. Time is CPU time
of Redis' main thread, the best of five rounds. The rings are filled for a day, each minute as the present one.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import redis

from videoqa import Settings
from videoqa.contract import JobRequest, Result, Usage
from videoqa.jobs import Ledger, Progress, Submission, connect, new_job_id, queue_name
from videoqa_worker.embedded.redis_server import RedisServer

ROUNDS = 5
STAGES = ("sampling", "generating", "storing")


def measure(client: redis.Redis, call: Callable[[], object], count: int) -> tuple[float, float]:
    """Returns the commands of a call that makes `count` steps, and microseconds of Redis' CPU, both by step."""
    client.config_resetstat()
    before = read_cpu_us(client)
    call()
    cpu_us = read_cpu_us(client) - before
    stats = cast("dict[str, Any]", client.info("commandstats"))
    calls = sum(
        of["calls"]
        for name, of in stats.items()
        if name not in ("cmdstat_info", "cmdstat_config|resetstat", "cmdstat_evalsha")
    )
    return calls / count, cpu_us / count


def read_cpu_us(client: redis.Redis) -> float:
    found = cast("dict[str, float]", client.info("cpu"))
    return 1e6 * (found["used_cpu_user_main_thread"] + found["used_cpu_sys_main_thread"])


def make_result(job_id: str, number: int) -> Result:
    now = datetime.now(UTC)
    usage = Usage(
        input_tokens=1612, output_tokens=13, frames=8, bytes_fetched=10**6, queued_s=0.01 * 1.3 ** (number % 20),
        fetching_s=0.1 * 1.2 ** (number % 12), sampling_s=0.2, generating_s=0.5 * 1.1 ** (number % 15), storing_s=0.02,
    )  # fmt: skip
    return Result.model_validate(
        {
            "job_id": job_id, "answers": [], "frames": [], "sources": [], "model": "demo", "sampling": {},
            "generation": {}, "usage": usage, "attempt": 1, "created_at": now, "finished_at": now,
        }
    )  # fmt: skip


def run_round(ledger: Ledger, client: redis.Redis, jobs: int) -> dict[str, tuple[float, float]]:
    request = JobRequest.model_validate({"inputs": ["s3://b/k.mp4"], "questions": ["What?"]})
    queue = queue_name(ledger.keys.prefix, None, "interactive")
    ids = [new_job_id() for _ in range(jobs)]
    claimed: list[str] = []

    def submit() -> None:
        for job_id in ids:
            ledger.submit(Submission(job_id, request), start_by_default_s=3600)

    def claim() -> None:
        for n in range(jobs):
            found = ledger.claim([queue], heard=queue, worker="w", lease_s=600, token=f"t{n}")
            claimed.append(found.claim.job_id if found.claim else "")

    def report() -> None:
        for n, job_id in enumerate(claimed):
            for stage in STAGES:
                ledger.progress(job_id, f"t{n}", Progress(stage))  # type: ignore[arg-type]

    def finish() -> None:
        for n, job_id in enumerate(claimed):
            result = make_result(job_id, n)
            ledger.finish(job_id, f"t{n}", result=None, result_url="s3://b/r", counted=result)

    return {
        "submit": measure(client, submit, jobs),
        "claim": measure(client, claim, jobs),
        "stage": measure(client, report, jobs * len(STAGES)),
        "finish": measure(client, finish, jobs),
    }


def measure_rings(client: redis.Redis, prefix: str) -> None:
    """Fills the rings of one model for a day as the present minute is, and prints their memory."""
    key = f"{prefix}:stats:default"
    fields = cast("dict[str, str]", client.hgetall(key))
    if not fields:
        return
    texts = {name[0]: text for name, text in fields.items()}
    for kind, text in texts.items():
        client.hset(key, mapping={f"{kind}m{n}": text for n in range(120)})
        client.hset(key, mapping={f"{kind}q{n}": text for n in range(104)})
    used = client.memory_usage(key, samples=0)
    print(f"rings of one model, full: {used:,} bytes; a minute has {len(texts['e'])} bytes of text")


def main(jobs: int = 500) -> None:
    with RedisServer(Path(tempfile.mkdtemp())) as server:
        settings = Settings(redis_url=server.url, prefix="bench")
        with connect(settings) as client:
            ledger = Ledger(client, url=server.url, prefix=settings.prefix)
            run_round(ledger, client, 10)
            rounds = [run_round(ledger, client, jobs) for _ in range(ROUNDS)]
            print(f"{'step':8} {'commands':>9} {'us of Redis':>12}")
            total_commands = total_us = 0.0
            for step in rounds[0]:
                commands = min(one[step][0] for one in rounds)
                us = min(one[step][1] for one in rounds)
                times = len(STAGES) if step == "stage" else 1
                total_commands, total_us = total_commands + times * commands, total_us + times * us
                print(f"{step:8} {commands:9.1f} {us:12.1f}")
            print(f"{'a job':8} {total_commands:9.1f} {total_us:12.1f}")
            measure_rings(client, settings.prefix)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
