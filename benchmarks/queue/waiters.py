"""Delay of news to 5,000 tasks and 500 threads that wait for jobs, with its connections and Valkey's CPU time.

    python benchmarks/queue/waiters.py [--tasks 5000] [--threads 500] [--news 200] [--jobs 20] [--seconds 10]
                                       [--running 0] [--ways client] [--json]

One private Valkey. The waiters are one process: an AsyncClient whose tasks, and a Client whose threads, each follow
a job of their own by `events`. Another process adds events to their streams at a rate (`--news`) and ends jobs at
another (`--jobs`), by `cancel`; the waiter of a job that ended goes on with a new one. Each event has the
time of its writing, so that delays are of one clock. With `--running N` the news are those of the N jobs that
end next; else of all jobs. Beside them one thread submits 50 jobs a second, and one waiter is slow: it takes 0.2 s
for each event of a stream that gets 100 a second. The former way, measured in the same run, is a blocking XREAD
of plain redis-py for each waiter. CPU is in cores. Other work on the machine makes all of it worse: `load` tells.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("producer", "worker")]

ASKED: Any = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}
SUBMIT_EVERY_S = 0.02
SETTLE_S = 8
"""Time from the last waiter's start, after which a client reads them as it does for good."""
SLOW_S = 0.2
"""Time that the slow waiter takes for an event."""
FLOOD = 100
"""Events a second of the stream that it follows."""


def write_news(url: str, ids_file: Path, waiters: int, args: argparse.Namespace) -> None:
    """Adds events to the streams of the jobs that are followed, and ends the oldest of these jobs, at a rate each.

    The first job of the file is that of the slow waiter.
    """
    import redis

    from videoqa.jobs import Ledger

    flooded, *ids = ids_file.read_text().split()
    plain = redis.Redis.from_url(url, decode_responses=True)
    ledger = Ledger(plain, url=url, prefix="videoqa")
    ended = 0

    def add(job_id: str) -> None:
        fields: Any = {"type": "stage", "state": "running", "stage": "generating"}
        plain.xadd(f"videoqa:events:{job_id}", fields | {"at": time.time()})

    def add_next(number: int) -> None:
        add(ids[ended + number * 7919 % (min(args.running, waiters) or waiters)])

    def end_next(number: int) -> None:
        nonlocal ended
        ledger.cancel(ids[number])
        ended = number + 1

    streams: list[tuple[float, Callable[[int], None]]] = [
        (args.news, add_next), (args.jobs, end_next), (FLOOD, lambda _: add(flooded)),
    ]  # fmt: skip
    due = sorted(
        (number / rate, index, number)
        for index, (rate, _) in enumerate(streams)
        for number in range(int(rate * args.seconds))
    )
    begun_s = time.monotonic()
    for at_s, index, number in due:
        time.sleep(max(0.0, begun_s + at_s - time.monotonic()))
        streams[index][1](number)


def summarize(delays: list[float]) -> dict[str, Any]:
    if not delays:
        return {"count": 0}
    ordered = sorted(delays)
    at = {f"p{part}_ms": ordered[int(len(ordered) * part / 100)] for part in (50, 99)}
    at["max_ms"] = ordered[-1]
    return {"count": len(ordered), **{name: round(s * 1000, 1) for name, s in at.items()}}


@dataclass
class Notes:
    """Measurements of the waiters' process."""

    news: list[float] = field(default_factory=list)
    submits: list[float] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    """Times of Python's full garbage collections, which stop all threads."""
    slow_events: int = 0
    _begun_s: float = 0.0

    def clear(self) -> None:
        for values in (self.news, self.submits, self.pauses):
            values.clear()
        self.slow_events = 0

    def note_event(self, event: Any) -> None:
        if event.type == "stage" or event.state == "canceled":
            self.news.append(time.time() - event.at.timestamp())

    def note_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._begun_s = time.perf_counter()
        elif info["generation"] == 2:
            self.pauses.append(time.perf_counter() - self._begun_s)


class Scene:
    """A server with jobs that are followed, and the measurements of it."""

    def __init__(
        self, url: str, ids: list[str], waiters: int, args: argparse.Namespace, folder: Path
    ) -> None:
        import redis

        self.url, self.waiters, self.args = url, waiters, args
        self.flooded = ids[0]
        self.ids = ids[1 : waiters + 1]
        self._spare = iter(ids[waiters + 1 :])
        self.notes = Notes()
        self.admin = redis.Redis.from_url(url, decode_responses=True)
        self.ids_file = folder / "ids"
        self.ids_file.write_text("\n".join(ids))

    def take_spare(self) -> str | None:
        """Returns the job with which a waiter whose job ended goes on."""
        return next(self._spare, None)

    def read_cpu_s(self) -> float:
        info = self.admin.info("cpu")
        return float(info["used_cpu_user"] + info["used_cpu_sys"])

    def measure(self) -> dict[str, Any]:
        """Measures two seconds without news, and then the time in which news come."""
        time.sleep(SETTLE_S)
        before_s, begun_s = self.read_cpu_s(), time.monotonic()
        time.sleep(2)
        idle = (self.read_cpu_s() - before_s) / (time.monotonic() - begun_s)
        self.notes.clear()
        gc.callbacks.append(self.notes.note_collection)
        connections = len(self.admin.client_list()) - 1
        before_s, begun_s = self.read_cpu_s(), time.monotonic()
        mine_s = time.process_time()
        command = ["--write", self.url, str(self.ids_file), str(self.waiters)]
        names = "news", "jobs", "running", "seconds"
        rates = [f"--{name}={getattr(self.args, name)}" for name in names]
        subprocess.run([sys.executable, __file__, *command, *rates], check=True)
        wall_s = time.monotonic() - begun_s
        found = {
            "connections": connections,
            "server_cpu_idle": round(idle, 3),
            "server_cpu": round((self.read_cpu_s() - before_s) / wall_s, 3),
            "client_cpu": round((time.process_time() - mine_s) / wall_s, 3),
            "load": round(os.getloadavg()[0], 2),
        }
        time.sleep(1)
        gc.callbacks.remove(self.notes.note_collection)
        pauses = [round(s * 1000) for s in self.notes.pauses]
        return found | {
            "full_collections_ms": pauses,
            "slow_events": self.notes.slow_events,
            "news": summarize(self.notes.news),
            "submit": summarize(self.notes.submits),
        }

    # -- the ways of waiting

    def use_client(self, tasks: int, threads: int) -> dict[str, Any]:
        """Waits with an AsyncClient, or with a Client, beside which jobs are submitted."""
        from videoqa import Client

        if tasks:
            return asyncio.run(self._use_async_client())
        over = threading.Event()
        with Client(self.url) as client, ThreadPoolExecutor(threads + 2) as pool:

            def follow(job_id: str | None) -> None:
                while job_id:
                    for event in client.events(job_id):
                        self.notes.note_event(event)
                    job_id = self.take_spare()

            def follow_slowly() -> None:
                for _ in client.events(self.flooded):
                    self.notes.slow_events += 1
                    time.sleep(SLOW_S)

            waits = [pool.submit(follow, job_id) for job_id in self.ids]
            waits.append(pool.submit(follow_slowly))
            while client._backend.reader.waiting < threads * 0.99:
                time.sleep(0.1)
            pool.submit(self._submit, client, over)
            found = self.measure()
            over.set()
            client.close()
            for wait in waits:
                wait.exception()
            return found

    async def _use_async_client(self) -> dict[str, Any]:
        from videoqa import AsyncClient

        over = threading.Event()

        async def follow(job_id: str | None) -> None:
            while job_id:
                async for event in client.events(job_id):
                    self.notes.note_event(event)
                job_id = self.take_spare()

        async def follow_slowly() -> None:
            async for _ in client.events(self.flooded):
                self.notes.slow_events += 1
                await asyncio.sleep(SLOW_S)

        async with AsyncClient(self.url) as client:
            waits = [asyncio.create_task(follow(job_id)) for job_id in self.ids]
            waits.append(asyncio.create_task(follow_slowly()))
            while client._client._backend.reader.waiting < self.waiters * 0.99:
                await asyncio.sleep(0.1)
            beside = asyncio.create_task(asyncio.to_thread(self._submit, client._client, over))
            found = await asyncio.to_thread(self.measure)
            over.set()
            await beside
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            return found

    def _submit(self, client: Any, over: threading.Event) -> None:
        while not over.wait(SUBMIT_EVERY_S):
            begun_s = time.monotonic()
            client.submit(**ASKED)
            self.notes.submits.append(time.monotonic() - begun_s)

    def use_redis(self, tasks: int, threads: int) -> dict[str, Any]:
        """Waits with a blocking XREAD for each waiter."""
        import redis
        import redis.asyncio

        over = threading.Event()

        def take(reply: Any) -> tuple[str, bool]:
            """Returns the id of the last entry, and True if the job ended."""
            streams = reply.values() if isinstance(reply, dict) else [entry[1] for entry in reply]
            entries = next(iter(streams))
            entries = entries[0] if isinstance(entries[0], list) else entries
            self.notes.news.extend(time.time() - float(fields["at"]) for _, fields in entries)
            return str(entries[-1][0]), entries[-1][1].get("state") == "canceled"

        def name_stream(job_id: str) -> str:
            return f"videoqa:events:{job_id}"

        async def use_tasks() -> dict[str, Any]:
            pool = redis.asyncio.ConnectionPool.from_url(
                self.url, max_connections=100_000, decode_responses=True
            )
            client = redis.asyncio.Redis(connection_pool=pool)

            async def follow(job_id: str | None) -> None:
                while job_id:
                    after, is_over = "0", False
                    while not is_over:
                        if reply := await client.xread({name_stream(job_id): after}, block=2000):
                            after, is_over = take(reply)
                    job_id = self.take_spare()

            waits = [asyncio.create_task(follow(job_id)) for job_id in self.ids]
            while self.admin.info("clients")["connected_clients"] < tasks:
                await asyncio.sleep(0.1)
            found = await asyncio.to_thread(self.measure)
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            await client.aclose()
            return found

        if tasks:
            return asyncio.run(use_tasks())
        plain = redis.Redis.from_url(self.url, max_connections=100_000, decode_responses=True)

        def follow(job_id: str | None) -> None:
            while job_id:
                after, is_over = "0", False
                while not is_over:
                    if over.is_set():
                        return
                    if reply := plain.xread({name_stream(job_id): after}, block=2000):
                        after, is_over = take(reply)
                job_id = self.take_spare()

        with ThreadPoolExecutor(threads) as pool:
            for job_id in self.ids:
                pool.submit(follow, job_id)
            while self.admin.info("clients")["connected_clients"] < threads:
                time.sleep(0.1)
            found = self.measure()
            over.set()
        return found


def run(args: argparse.Namespace, note: Callable[[str], None]) -> dict[str, Any]:
    from videoqa import Client
    from videoqa_worker.embedded.redis_server import RedisServer

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asked = {name: getattr(args, name) for name in ("news", "jobs", "running", "seconds")}
    found: dict[str, Any] = {"cores": os.cpu_count(), "asked": asked}
    sizes = [(args.tasks, 0), (0, args.threads)]
    with tempfile.TemporaryDirectory() as name:
        for (tasks, threads), way in itertools.product(sizes, args.ways):
            waiters = tasks or threads
            if not waiters:
                continue
            title = f"{way}, {tasks} tasks" if tasks else f"{way}, {threads} threads"
            with RedisServer(Path(name) / title.replace(" ", "-")) as server:
                jobs = 1 + waiters + int(args.jobs * args.seconds)
                with Client(server.url) as client:
                    ids = [job.id for job in client.submit_many([ASKED] * jobs)]
                scene = Scene(server.url, ids, waiters, args, Path(name))
                use = scene.use_client if way == "client" else scene.use_redis
                found[title] = use(tasks, threads)
                note(f"{title}:")
                for what, value in found[title].items():
                    note(f"    {what:20} {json.dumps(value)}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=500)
    parser.add_argument("--news", type=float, default=200, help="events a second")
    parser.add_argument("--jobs", type=float, default=20, help="jobs that end a second")
    parser.add_argument("--running", type=int, default=0, help="jobs that have news; 0: all")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument(
        "--ways", nargs="+", choices=["client", "redis"], default=["client", "redis"]
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", nargs=3, metavar=("URL", "IDS", "N"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        url, ids_file, waiters = args.write
        write_news(url, Path(ids_file), int(waiters), args)
        return
    out = sys.stderr if args.json else sys.stdout
    found = run(args, lambda text: print(text, file=out, flush=True))
    if args.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
