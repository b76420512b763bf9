"""Jobs a second that one process can submit, against bare Celery.

    python benchmarks/queue/submit.py [--jobs 5000] [--json]

One private Redis, in turn, three rounds, the best of each: Celery's own `apply_async` of a task with the
same request as its argument, with videoqa's transport settings; `Client.submit`; `Client.submit_many`. Celery's
message is all that there is then; videoqa also has a record that can be asked for, canceled and found again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import redis

from videoqa.broker import make_celery
from videoqa.client import Client
from videoqa.contract import JobRequest
from videoqa.settings import Settings
from videoqa_worker.embedded.redis_server import RedisServer

ROUNDS = 3


def requests(count: int) -> Iterator[JobRequest]:
    for n in range(count):
        yield JobRequest.model_validate(
            {
                "inputs": [f"s3://videos/2026/11/{n:07}.mp4"],
                "questions": ["What is happening in this video?"],
                "custom_id": f"row-{n}",
                "priority": "bulk",
            }
        )


def rate(count: int, submit: Callable[[list[JobRequest]], object], server: redis.Redis) -> float:
    """Jobs a second."""
    jobs = list(requests(count))
    server.flushall()
    begun = time.perf_counter()
    submit(jobs)
    return count / (time.perf_counter() - begun)


def measure(count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder) / "redis")
        try:
            return _measure(count, Settings(redis_url=server.url), redis.Redis.from_url(server.url))
        finally:
            server.stop()


def _measure(count: int, settings: Settings, server: redis.Redis) -> dict[str, float]:
    app = make_celery(settings)

    @app.task(name="bare")
    def task(request: dict[str, object]) -> None:
        """Never run: there is no worker."""

    def bare(jobs: list[JobRequest]) -> None:
        for job in jobs:
            task.apply_async(
                args=(job.model_dump(mode="json", exclude_defaults=True),), queue="bare"
            )

    with Client(settings=settings) as client:
        ways: dict[str, Callable[[list[JobRequest]], object]] = {
            "celery apply_async": bare,
            "submit": lambda jobs: [client.submit(job) for job in jobs],
            "submit_many": client.submit_many,
        }
        for submit in ways.values():
            rate(50, submit, server)
        best = dict.fromkeys(ways, 0.0)
        for _ in range(ROUNDS):
            for name, submit in ways.items():
                best[name] = max(best[name], rate(count, submit, server))
    app.close()
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    found = measure(args.jobs)
    bare = found["celery apply_async"]
    ratios = {name: round(each / bare, 2) for name, each in found.items()}
    if args.json:
        rates = {name: round(each) for name, each in found.items()}
        print(json.dumps({"jobs": args.jobs, "per_s": rates, "of_celery": ratios}))
        return
    print(f"{args.jobs} jobs, celery {version('celery')}, redis-py {version('redis')}")
    for name, each in found.items():
        print(f"{name:20} {each:8.0f} jobs/s  {ratios[name]:5.2f} x")


if __name__ == "__main__":
    main()
