"""Delay of news to 5,000 tasks and 500 threads that wait for jobs, with its connections and Valkey's CPU time.

    python benchmarks/queue/waiters.py [--tasks 5000] [--threads 500] [--news 200] [--seconds 10] [--json]

One private Valkey. The waiters are one process: an AsyncClient whose tasks, and a Client whose threads, each wait
for a job of their own by `events`. Another process adds events at the given rate to streams by turns, each with
the time of its sending, so that delays are of one clock. Beside them one thread submits a job ten times a
second. The former way, measured in the same run, is a blocking XREAD of plain redis-py for each waiter.
"""

from __future__ import annotations

import argparse
import asyncio
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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("producer", "worker")]

ASKED: Any = {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"]}


def send(url: str, ids: Path, rate: float, seconds: float) -> None:
    """Adds events to the streams by turns, at a rate."""
    import redis

    names = ids.read_text().split()
    plain = redis.Redis.from_url(url)
    begun_s = time.monotonic()
    for number in range(int(rate * seconds)):
        time.sleep(max(0.0, begun_s + number / rate - time.monotonic()))
        key = f"videoqa:events:{names[number * 7919 % len(names)]}"
        fields = {"type": "stage", "state": "running", "stage": "generating", "at": time.time()}
        plain.xadd(key, fields)


def read_delays(delays: list[float]) -> dict[str, Any]:
    ordered = sorted(delays)
    at = {f"p{part}_ms": ordered[int(len(ordered) * part / 100)] for part in (50, 99)}
    return {"news": len(ordered), **{name: round(s * 1000, 1) for name, s in at.items()}}


class Scene:
    """A server with jobs that wait, and what is measured of it."""

    def __init__(self, url: str, ids: list[str], args: argparse.Namespace, folder: Path) -> None:
        import redis

        self.url, self.ids, self.args = url, ids, args
        self.admin = redis.Redis.from_url(url, decode_responses=True)
        self.ids_file = folder / "ids"
        self.ids_file.write_text("\n".join(ids))

    def cpu_s(self) -> float:
        info = self.admin.info("cpu")
        return float(info["used_cpu_user"] + info["used_cpu_sys"])

    def measure(self, delays: list[float], submits: list[float]) -> dict[str, Any]:
        """Measures two seconds without news, and then the time in which news come."""
        before_s, begun_s = self.cpu_s(), time.monotonic()
        time.sleep(2)
        idle = (self.cpu_s() - before_s) / (time.monotonic() - begun_s)
        delays.clear()
        submits.clear()
        connections = len(self.admin.client_list()) - 1
        before_s, begun_s = self.cpu_s(), time.monotonic()
        mine_s = time.process_time()
        command = ["--send", self.url, str(self.ids_file)]
        rates = ["--news", str(self.args.news), "--seconds", str(self.args.seconds)]
        subprocess.run([sys.executable, __file__, *command, *rates], check=True)
        wall_s = time.monotonic() - begun_s
        found = {
            "connections": connections,
            "server_cpu_idle": round(idle, 3),
            "server_cpu": round((self.cpu_s() - before_s) / wall_s, 3),
            "client_cpu": round((time.process_time() - mine_s) / wall_s, 3),
        }
        time.sleep(1)
        found |= read_delays(delays)
        if submits:
            found |= {f"submit_{name}": value for name, value in read_delays(submits).items()}
        return found

    # -- the ways of waiting

    def use_client(self, tasks: int, threads: int) -> dict[str, Any]:
        """Waits with an AsyncClient, or with a Client, beside which jobs are submitted."""
        from videoqa import AsyncClient, Client

        delays: list[float] = []
        submits: list[float] = []
        over = threading.Event()

        def submit(client: Client) -> None:
            while not over.wait(0.1):
                begun_s = time.monotonic()
                client.submit(**ASKED)
                submits.append(time.monotonic() - begun_s)

        def note(event: Any) -> None:
            if event.type == "stage":
                delays.append(time.time() - event.at.timestamp())

        async def follow() -> dict[str, Any]:
            async def read(job_id: str) -> None:
                async for event in client.events(job_id):
                    note(event)

            async with AsyncClient(self.url) as client:
                waits = [asyncio.create_task(read(job_id)) for job_id in self.ids[:tasks]]
                while client._client._reader.waiting < tasks * 0.99:
                    await asyncio.sleep(0.1)
                beside = asyncio.create_task(asyncio.to_thread(submit, client._client))
                found = await asyncio.to_thread(self.measure, delays, submits)
                over.set()
                await beside
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)
                return found

        if tasks:
            return asyncio.run(follow())
        with Client(self.url) as client, ThreadPoolExecutor(threads + 1) as pool:

            def read(job_id: str) -> None:
                for event in client.events(job_id):
                    note(event)

            waits = [pool.submit(read, job_id) for job_id in self.ids[:threads]]
            while client._reader.waiting < threads * 0.99:
                time.sleep(0.1)
            pool.submit(submit, client)
            found = self.measure(delays, submits)
            over.set()
            client.close()
            for wait in waits:
                wait.exception()
            return found

    def use_redis(self, tasks: int, threads: int) -> dict[str, Any]:
        """Waits with a blocking XREAD for each waiter."""
        import redis
        import redis.asyncio

        delays: list[float] = []
        over = threading.Event()
        ready = [0]

        def take(reply: Any) -> str:
            streams = reply.values() if isinstance(reply, dict) else [entry[1] for entry in reply]
            entries = next(iter(streams))
            entries = entries[0] if isinstance(entries[0], list) else entries
            delays.extend(time.time() - float(fields["at"]) for _, fields in entries)
            return str(entries[-1][0])

        def begin(job_id: str) -> tuple[str, str]:
            return f"videoqa:events:{job_id}", "$"

        async def follow() -> dict[str, Any]:
            pool = redis.asyncio.ConnectionPool.from_url(
                self.url, max_connections=100_000, decode_responses=True
            )
            client = redis.asyncio.Redis(connection_pool=pool)

            async def read(job_id: str) -> None:
                key, after = begin(job_id)
                ready[0] += 1
                while True:
                    if reply := await client.xread({key: after}, block=2000):
                        after = take(reply)

            waits = [asyncio.create_task(read(job_id)) for job_id in self.ids[:tasks]]
            while self.admin.info("clients")["connected_clients"] < tasks:
                await asyncio.sleep(0.1)
            found = await asyncio.to_thread(self.measure, delays, [])
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            await client.aclose()
            return found

        if tasks:
            return asyncio.run(follow())
        plain = redis.Redis.from_url(self.url, max_connections=100_000, decode_responses=True)

        def read(job_id: str) -> None:
            key, after = begin(job_id)
            while not over.is_set():
                if reply := plain.xread({key: after}, block=2000):
                    after = take(reply)

        with ThreadPoolExecutor(threads) as pool:
            for job_id in self.ids[:threads]:
                pool.submit(read, job_id)
            while self.admin.info("clients")["connected_clients"] < threads:
                time.sleep(0.1)
            found = self.measure(delays, [])
            over.set()
        return found


def run(args: argparse.Namespace, note: Callable[[str], None]) -> dict[str, Any]:
    from videoqa import Client
    from videoqa_worker.embedded.redis_server import RedisServer

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    found: dict[str, Any] = {"cores": os.cpu_count(), "asked_news_a_second": args.news}
    with tempfile.TemporaryDirectory() as name:
        for way, tasks, threads in (
            ("client", args.tasks, 0), ("redis", args.tasks, 0),
            ("client", 0, args.threads), ("redis", 0, args.threads),
        ):  # fmt: skip
            title = f"{way}, {tasks} tasks" if tasks else f"{way}, {threads} threads"
            with RedisServer(Path(name) / title.replace(" ", "-")) as server:
                with Client(server.url) as client:
                    ids = [job.id for job in client.submit_many([ASKED] * (tasks or threads))]
                scene = Scene(server.url, ids, args, Path(name))
                use = scene.use_client if way == "client" else scene.use_redis
                found[title] = use(tasks, threads)
                note(f"{title}: {json.dumps(found[title])}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=500)
    parser.add_argument("--news", type=float, default=200, help="events a second")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--send", nargs=2, metavar=("URL", "IDS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.send:
        send(args.send[0], Path(args.send[1]), args.news, args.seconds)
        return
    found = run(args, lambda text: print(text, file=sys.stderr, flush=True))
    if args.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
