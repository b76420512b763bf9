"""Status reads, submits and listeners of one gateway, beside LitServe's HTTP layer.

    python benchmarks/gateway/load.py [--seconds 10] [--listeners 2000] [--news 200] [--parts reads submits ...]
                                      [--json]

One private Valkey, and one `videoqa gateway` as its own process, with an API key that has a tenant. Requests are sent
by `hey` (Debian's package of this name), a load tool in Go: at a rate over 5 connections, and as fast as 50 go.
Listeners are one process that follows `GET /v1/jobs/{id}/events` of a job each; another process adds events to their
streams, each with the time of its writing, so that delays are of one clock. One more listener does not read, and its
job has 500 large events a second. In the part `restart` the gateway gets SIGTERM while the news come and another one
takes its port; the listeners resume by `Last-Event-ID`, and their events are compared with the streams. LitServe
answers a `predict` that does nothing: it keeps no job, so it is the cost of an HTTP layer alone. All of it shares the
machine's cores. CPU is in ms a request, or in cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("producer", "worker")]

ASKED: Any = {"inputs": ["https://example.org/clip.mp4"], "questions": ["What is it?"]}
CONNECTIONS, AT_A_RATE = 50, 5
"""Connections of the load tool: as fast as they go, and at a rate."""
PARTS = ("reads", "submits", "listeners", "restart", "litserve")
READS, SUBMITS = 500, 200
"""The goals, in requests a second."""
LITSERVE = """
import sys
import litserve

class Nothing(litserve.LitAPI):
    def setup(self, device): pass
    def predict(self, request): return {"output": "done"}

if __name__ == "__main__":
    litserve.LitServer(Nothing(), accelerator="cpu").run(port=int(sys.argv[1]), generate_client_file=False,
                                                        num_api_servers=1, log_level="error")
"""


def find_free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def summarize(seconds: list[float]) -> dict[str, Any]:
    ordered = sorted(seconds)
    if not ordered:
        return {"count": 0}
    at = {f"p{part}_ms": ordered[int(len(ordered) * part / 100)] for part in (50, 99)}
    at["max_ms"] = ordered[-1]
    return {"count": len(ordered), **{name: round(s * 1000, 1) for name, s in at.items()}}


def read_cpu_s(process: psutil.Process) -> float:
    """Returns the CPU time of a process and its children."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        times = one.cpu_times()
        total += times.user + times.system
    return total


def wait_for_port(port: int, process: subprocess.Popen[Any]) -> None:
    ends_s = time.monotonic() + 60
    while time.monotonic() < ends_s and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"port {port} did not open; the server's status is {process.poll()}")


class Gateway:
    """A gateway's process, on a port of its own."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self.port = find_free_port()
        self._folder = folder
        self._environment = os.environ | {
            "VIDEOQA_REDIS_URL": redis_url,
            "VIDEOQA_GATEWAY_PORT": str(self.port),
            "PYTHONPATH": os.pathsep.join(sys.path[:2]),
        }
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        log = (self._folder / "gateway.log").open("ab")
        command = [sys.executable, "-c", "from videoqa_command import main; main()", "gateway"]
        self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        self.ps = psutil.Process(self._process.pid)
        wait_for_port(self.port, self._process)

    def stop(self) -> float:
        """Sends SIGTERM; returns the time that the process took to end."""
        begun_s = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        return time.monotonic() - begun_s


class Hey:
    """Runs of `hey`, whose report of each request is read from its CSV."""

    def __init__(self, seconds: float, headers: list[str]) -> None:
        self._seconds = seconds
        self._headers = headers

    def run(
        self,
        url: str,
        server: psutil.Process,
        *,
        rate: float | None = None,
        body: str | None = None,
        seconds: float | None = None,
    ) -> dict[str, Any]:
        """Returns rates, delays, statuses, and the server's CPU time a request."""
        # Its connections send in step, each at its own rate: many of them would be bursts.
        connections = CONNECTIONS if rate is None else AT_A_RATE
        command = ["hey", "-o", "csv", "-c", str(connections), "-z", f"{seconds or self._seconds}s"]
        if rate is not None:
            command += ["-q", str(rate / connections)]
        if body is not None:
            command += ["-m", "POST", "-T", "application/json", "-d", body]
        for header in self._headers:
            command += ["-H", header]
        before_s, begun_s = read_cpu_s(server), time.monotonic()
        said = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
        wall_s, cpu_s = time.monotonic() - begun_s, read_cpu_s(server) - before_s
        rows = [line.split(",") for line in said.splitlines()[1:] if line]
        statuses: dict[str, int] = {}
        for row in rows:
            statuses[row[6]] = statuses.get(row[6], 0) + 1
        return {
            "asked_per_s": rate,
            "per_s": round(len(rows) / wall_s, 1),
            "cpu_ms": round(cpu_s / max(1, len(rows)) * 1000, 3),
            "statuses": statuses,
            **summarize([float(row[0]) for row in rows]),
        }


# -- listeners


class Listener:
    """One client of an event stream, which resumes where it was."""

    def __init__(self, port: int, job_id: str, key: str, delays: list[float]) -> None:
        self.ids: list[str] = []
        self._port, self._job_id, self._key, self._delays = port, job_id, key, delays
        self.is_open = False

    async def follow(self) -> None:
        """Follows the stream until it is canceled; a lost connection is made again."""
        while True:
            with suppress(OSError, EOFError, asyncio.IncompleteReadError):
                await self._read()
            self.is_open = False
            await asyncio.sleep(0.2)

    async def _read(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            resumed = f"Last-Event-ID: {self.ids[-1]}\r\n" if self.ids else ""
            writer.write(
                f"GET /v1/jobs/{self._job_id}/events HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
                f"Authorization: Bearer {self._key}\r\n{resumed}\r\n".encode()
            )
            status = await reader.readline()
            if not status:
                return
            if b" 200 " not in status:
                raise OSError(status.decode())
            self.is_open = True
            while line := await reader.readline():
                if line.startswith(b"id: "):
                    self.ids.append(line[4:].strip().decode())
                elif line.startswith(b"data: "):
                    at = json.loads(line[6:])["at"]
                    self._delays.append(time.time() - _read_time(at))
        finally:
            writer.close()


def _read_time(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def listen(port: int, key: str, ids_file: Path) -> None:
    """Follows the jobs of the file, until its standard input is closed; then it prints what it saw as JSON."""
    raise_limit()
    ids = ids_file.read_text().split()
    delays: list[float] = []
    listeners = [Listener(port, job_id, key, delays) for job_id in ids]

    async def run() -> None:
        loop = asyncio.get_running_loop()
        tasks = []
        for n, one in enumerate(listeners):
            tasks.append(asyncio.create_task(one.follow()))
            if n % 50 == 49:
                await asyncio.sleep(0.05)
        while sum(one.is_open for one in listeners) < len(listeners):
            await asyncio.sleep(0.1)
        print("open", flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            if line.strip() == "clear":
                delays.clear()
            elif line.strip() == "count":
                print(sum(one.is_open for one in listeners), flush=True)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
    print(json.dumps({"delays": delays, "ids": {one._job_id: one.ids for one in listeners}}))


def write_news(url: str, ids_file: Path, rate: float, seconds: float) -> None:
    """Adds events to the streams of the jobs of the file in turn; the first job's are a flood."""
    import redis

    flooded, *ids = ids_file.read_text().split()
    plain = redis.Redis.from_url(url, decode_responses=True)

    def add(job_id: str, **more: Any) -> None:
        fields: Any = {"type": "stage", "state": "running", "stage": "generating", **more}
        plain.xadd(f"videoqa:events:{job_id}", fields | {"at": time.time()})

    begun_s = time.monotonic()
    for n in range(int(rate * seconds)):
        time.sleep(max(0.0, begun_s + n / rate - time.monotonic()))
        add(ids[n * 7919 % len(ids)])
        for _ in range(max(1, round(500 / rate))):
            add(flooded, text="x" * 2000)


def raise_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def _following(gateway: Gateway, key: str, ids_file: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, __file__, "--listen", str(gateway.port), key, str(ids_file)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def _not_reading(gateway: Gateway, key: str, job_id: str) -> Iterator[None]:
    """Follows a job's events without reading them."""
    with socket.create_connection(("127.0.0.1", gateway.port)) as slow:
        slow.sendall(
            f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
        )
        yield


class Bench:
    """The parts of the benchmark."""

    def __init__(self, args: argparse.Namespace, redis_url: str, folder: Path) -> None:
        import redis

        from videoqa import Client
        from videoqa.gateway.access.keys import KeyStore

        self.args, self.folder, self.redis_url = args, folder, redis_url
        self.admin = redis.Redis.from_url(redis_url, decode_responses=True)
        store = KeyStore(self.admin, url=redis_url, prefix="videoqa")
        self.key = store.create("load", ("submit", "read"), tenant="a").text
        self.gateway = Gateway(redis_url, folder)
        self.hey = Hey(args.seconds, [f"Authorization: Bearer {self.key}"])
        with Client(redis_url, tenant="a") as client:
            self.ids = [job.id for job in client.submit_many([ASKED] * (args.listeners + 1))]

    def reads(self) -> dict[str, Any]:
        url, ps = f"{self.gateway.url}/v1/jobs/{self.ids[1]}", self.gateway.ps
        self.hey.run(url, ps, seconds=2)
        return {
            "at the goal": self.hey.run(url, ps, rate=READS),
            "as fast as it goes": self.hey.run(url, ps),
        }

    def submits(self) -> dict[str, Any]:
        url, ps, body = f"{self.gateway.url}/v1/jobs", self.gateway.ps, json.dumps(ASKED)
        self.hey.run(url, ps, seconds=2, body=body)
        return {
            "at the goal": self.hey.run(url, ps, rate=SUBMITS, body=body),
            "as fast as it goes": self.hey.run(url, ps, body=body),
        }

    def litserve(self) -> dict[str, Any]:
        try:
            from importlib.metadata import version

            found = {"version": version("litserve")}
        except ModuleNotFoundError:
            return {"left out": "pip install litserve"}
        script = self.folder / "serve_nothing.py"
        script.write_text(LITSERVE)
        port = find_free_port()
        with (self.folder / "litserve.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(script), str(port)],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_for_port(port, process)
            url, ps = f"http://127.0.0.1:{port}/predict", psutil.Process(process.pid)
            self.hey.run(url, ps, seconds=3, body="{}")
            return found | {
                "at the goal of submits": self.hey.run(url, ps, rate=SUBMITS, body="{}"),
                "at the goal of reads": self.hey.run(url, ps, rate=READS, body="{}"),
                "as fast as it goes": self.hey.run(url, ps, body="{}"),
            }
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _start_news(self, ids_file: Path) -> subprocess.Popen[bytes]:
        rates = [str(self.args.news), str(self.args.seconds)]
        return subprocess.Popen(
            [sys.executable, __file__, "--write", self.redis_url, str(ids_file), *rates]
        )

    def _count_connections(self) -> tuple[int, int]:
        """Counts the gateway's connections to the server that read events, and all of them."""
        mine = {line.laddr.port for line in self.gateway.ps.net_connections("tcp") if line.raddr}
        found = [
            one for one in self.admin.client_list() if int(one["addr"].rpartition(":")[2]) in mine
        ]
        return sum(one["cmd"] == "xread" for one in found), len(found)

    def listeners(self) -> dict[str, Any]:
        self.gateway.stop()
        self.gateway.start()
        flooded, *ids = self.ids
        followed, written = self.folder / "followed", self.folder / "written"
        followed.write_text("\n".join(ids))
        written.write_text("\n".join([flooded, *ids]))
        before = self.gateway.ps.memory_info().rss
        with _following(self.gateway, self.key, followed) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(8)  # after which the shared reader reads them as it does for good
            memory = self.gateway.ps.memory_info().rss - before
            with _not_reading(self.gateway, self.key, flooded):
                process.stdin.write("clear\n")
                cpu_s, begun_s = read_cpu_s(self.gateway.ps), time.monotonic()
                reading = most = 0
                news = self._start_news(written)
                while news.poll() is None:
                    now_reading, now = self._count_connections()
                    reading, most = max(reading, now_reading), max(most, now)
                    time.sleep(0.5)
                wall_s, cpu_s = time.monotonic() - begun_s, read_cpu_s(self.gateway.ps) - cpu_s
                time.sleep(1)
                flood = self.gateway.ps.memory_info().rss - before - memory
            process.stdin.close()
            seen = json.loads(process.stdout.readline())
        return {
            "listeners": len(ids),
            "kB_per_listener": round(memory / len(ids) / 1000, 1),
            "redis_connections_that_read_events": reading,
            "redis_connections": most,
            "gateway_cores": round(cpu_s / wall_s, 2),
            "MB_of_the_one_that_does_not_read": round(flood / 1e6, 1),
            "news": summarize(seen["delays"]),
        }

    def restart(self) -> dict[str, Any]:
        flooded, *ids = self.ids
        followed, written = self.folder / "followed", self.folder / "written"
        followed.write_text("\n".join(ids))
        written.write_text("\n".join([flooded, *ids]))
        with _following(self.gateway, self.key, followed) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.readline()
            news = self._start_news(written)
            time.sleep(self.args.seconds / 3)
            ended_s = self.gateway.stop()
            self.gateway.start()
            begun_s = time.monotonic()
            news.wait()

            def count() -> int:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write("count\n")
                return int(process.stdout.readline())

            while count() < len(ids):
                time.sleep(0.2)
            back_s = time.monotonic() - begun_s
            time.sleep(3)
            process.stdin.close()
            seen: dict[str, list[str]] = json.loads(process.stdout.readline())["ids"]
        lost = repeated = events = 0
        for job_id, found in seen.items():
            stream = [event_id for event_id, _ in self.admin.xrange(f"videoqa:events:{job_id}")]
            events += len(stream)
            lost += len(set(stream) - set(found))
            repeated += len(found) - len(set(found))
        return {
            "events": events,
            "lost": lost,
            "repeated": repeated,
            "ended_after_s": round(ended_s, 2),
            "all_listen_again_after_s": round(back_s, 2),
        }


def run(args: argparse.Namespace, note: Callable[[str], None]) -> dict[str, Any]:
    from videoqa_worker.embedded.redis_server import RedisServer

    if shutil.which("hey") is None:
        raise SystemExit("got no `hey`, expected it on the PATH: apt-get install hey")
    raise_limit()
    found: dict[str, Any] = {"cores": os.cpu_count(), "load_before": round(os.getloadavg()[0], 2)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with RedisServer(folder / "redis") as server:
            bench = Bench(args, server.url, folder)
            try:
                for part in args.parts:
                    found[part] = getattr(bench, part)()
                    note(f"{part}:")
                    for what, value in found[part].items():
                        note(f"    {what:24} {json.dumps(value)}")
            finally:
                bench.gateway.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--listeners", type=int, default=2000)
    parser.add_argument("--news", type=float, default=200, help="events a second")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--listen", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--write", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.listen:
        port, key, ids_file = args.listen
        listen(int(port), key, Path(ids_file))
        return
    if args.write:
        url, ids_file, rate, seconds = args.write
        write_news(url, Path(ids_file), float(rate), float(seconds))
        return
    out = sys.stderr if args.json else sys.stdout
    found = run(args, lambda text: print(text, file=out, flush=True))
    if args.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
