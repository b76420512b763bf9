"""Real servers, production workers and a client under faults, and what became of each job.

Counts come from the client's own list of acknowledged submits, never from what the server says
that there is. Expected answers are those of a run without faults, just before.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, cast

import psutil
import redis

from videoqa import errors
from videoqa.client import Client
from videoqa.job import FINAL_STATES, Event, Result
from videoqa.settings import Settings
from videoqa.states import Ledger
from videoqa_worker.demo.clips import write_clip
from videoqa_worker.demo.scenes import Scene
from videoqa_worker.embedded.redis_server import RedisServer

__all__ = ["LEASE_S", "Rig", "Tally", "Worker"]

LEASE_S = 3.0
DRAIN_S = 120.0
IN_FLIGHT = 64
SETTINGS = {
    "VIDEOQA_MODEL": "demo",
    "VIDEOQA_FILE_ROOTS": "/",
    "VIDEOQA_CPU_THREADS": "1",
    "VIDEOQA_DECODERS": "1",
    "VIDEOQA_RETRY_BASE_S": "0.1",
    "VIDEOQA_REAP_EVERY_S": "0.3",
    "VIDEOQA_HEARTBEAT_S": "0.3",
    "VIDEOQA_LEASE_S": str(LEASE_S),
    "VIDEOQA_BELL_GRACE_S": "2",
    "VIDEOQA_DRAIN_GRACE_S": "20",
}
"""Faults are noticed sooner than in production, so that a run takes minutes."""
SCENES = [("red", "circle", "right"), ("green", "triangle", "down"), ("blue", "square", "left")]
QUESTIONS = ["What is moving?", "What color is it?"]


@dataclass
class Tally:
    """What became of the jobs of a run."""

    row: str
    jobs: int = 0
    kills: int = 0
    held: int = 0
    """Jobs that ran on a worker when it was killed: so many may have to ask the model again."""
    lost: int = 0
    """Acknowledged, and no record or no result any more."""
    wrong: int = 0
    """Failed, or another answer than without faults."""
    conflict: int = 0
    """More than one final state, or an object that is not the record's result."""
    stuck: int = 0
    """Not final after the drain."""
    extra_runs: int = 0
    """Times that the model was asked beyond once a job."""
    recovery_s: list[float] = field(default_factory=list)
    """From the last word of a lost attempt to the first of the next."""
    seconds: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        broken = self.lost or self.wrong or self.conflict or self.stuck
        return not broken and self.extra_runs <= self.held

    def as_json(self) -> dict[str, Any]:
        found = {
            name: getattr(self, name)
            for name in (
                "row", "jobs", "kills", "held", "lost", "wrong", "conflict", "stuck", "extra_runs"
            )
        }  # fmt: skip
        recovery = sorted(self.recovery_s)
        if recovery:
            found["recovery_p50_s"] = round(recovery[len(recovery) // 2], 2)
            found["recovery_p99_s"] = round(recovery[int(len(recovery) * 0.99)], 2)
        return found | {"seconds": round(self.seconds, 1), **self.notes}


class Worker:
    """A forked production worker in a process group of its own."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid, self.log = pid, log

    def running(self) -> bool:
        try:
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def signal(self, number: signal.Signals) -> None:
        """To the worker alone."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to the whole group, as a host that dies."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait(10)

    def wait(self, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        while self.running() and time.monotonic() < until:
            time.sleep(0.02)
        return not self.running()


class Rig:
    """A context manager; all of it ends with the block."""

    def __init__(
        self, row: str, seed: int, *, redis_config: str = "", environ: dict[str, str] | None = None
    ) -> None:
        self.tally = Tally(row)
        self.draw = random.Random(seed)
        self.acknowledged: dict[str, int] = {}
        """Job id -> number of the job."""
        self.workers: list[Worker] = []
        self._redis_config = redis_config
        self._environ = environ or {}
        self._stack = ExitStack()
        self._zygote: subprocess.Popen[str] | None = None
        self._final: set[str] = set()
        self._count = 0
        self._expected: dict[int, str] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self.redis = RedisServer(self.folder / "redis", extra=self._redis_config)
            stack.callback(self._stop_redis)
            self.settings = Settings(redis_url=self.redis.url, prefix="faults")
            self.client = stack.enter_context(Client(settings=self.settings))
            self._plain = redis.Redis.from_url(self.redis.url, decode_responses=True)
            stack.callback(self._plain.close)
            self.ledger = Ledger(self._plain, url=self.redis.url, prefix="faults")
            self.clips = [
                write_clip(
                    Scene.single(*words),
                    self.folder / f"{n}.mp4",
                    size_px=(160, 120),
                    duration_s=1.0,
                )
                for n, words in enumerate(SCENES)
            ]
            stack.callback(self._end_workers)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _end_workers(self) -> None:
        for worker in self.workers:
            worker.signal(signal.SIGCONT)
            worker.kill()
        if self._zygote is not None:
            self._zygote.kill()
            self._zygote.communicate()

    def _stop_redis(self) -> None:
        self.redis.stop()  # the one that runs then, not the first

    def restart_redis(self) -> None:
        """With the same data, on the same port."""
        self.redis = RedisServer(
            self.folder / "redis",
            port=self.redis.port,
            password=self.redis.password,
            extra=self._redis_config,
        )

    # Workers

    def spawn(self, **environ: str) -> Worker:
        """Another worker; does not wait until it is ready."""
        self._count += 1
        log = self.folder / f"worker-{self._count}.log"
        clean = {name: value for name, value in os.environ.items() if "VIDEOQA_" not in name}
        order = {
            "log": str(log),
            "environ": clean
            | SETTINGS
            | {
                "VIDEOQA_REDIS_URL": self.redis.url,
                "VIDEOQA_PREFIX": "faults",
                "VIDEOQA_OUTPUT": (self.folder / "results").as_uri() + "/{job_id}.json",
            }
            | self._environ
            | environ,
        }
        if self._zygote is None:
            self._zygote = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("zygote.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        stdin, stdout = self._zygote.stdin, self._zygote.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(order) + "\n")
        stdin.flush()
        worker = Worker(int(stdout.readline()), log)
        self.workers.append(worker)
        return worker

    def wait_ready(self, count: int, timeout_s: float = 60) -> None:
        """Until so many of the workers that run are ready."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            pids = {str(worker.pid) for worker in self.workers if worker.running()}
            ready = [
                info
                for info in self.client.workers()
                if info.ready and info.id.rpartition(":")[2] in pids
            ]
            if len(ready) >= count:
                return
            time.sleep(0.1)
        raise TimeoutError(f"{count} workers were not ready: {self.workers[-1].log.read_text()}")

    def replace(self, worker: Worker) -> Worker:
        self.workers.remove(worker)
        return self.spawn()

    # Jobs

    def request(self, number: int) -> dict[str, Any]:
        kind = number % (len(self.clips) * len(QUESTIONS))
        clip, question = divmod(kind, len(QUESTIONS))
        return {
            "inputs": [self.clips[clip].as_uri()],
            "questions": [QUESTIONS[question]],
            "sampling": {"frames": 4},
            "max_attempts": 20,
            "idempotency_key": f"job-{number}",
            "priority": ("interactive", "bulk")[number % 2],
        }

    def learn(self) -> None:
        """The expected answers, without faults."""
        kinds = len(self.clips) * len(QUESTIONS)
        jobs = [
            self.client.submit(self.request(n) | {"idempotency_key": f"learn-{n}"})
            for n in range(kinds)
        ]
        for n, job in enumerate(jobs):
            self.client.wait(job.id, timeout_s=60)
            self._expected[n] = self.client.result(job.id).answers[0].text

    def submit(self, count: int) -> None:
        """So many jobs, never more than `IN_FLIGHT` of them not final; as a careful client does,
        again with the same key where Redis gave no answer."""
        first = self.tally.jobs
        for number in range(first, first + count):
            while number % 16 == 0 and len(self.open_jobs()) > IN_FLIGHT:
                time.sleep(0.05)
            self._acknowledge(number)
        self.tally.jobs += count

    def _acknowledge(self, number: int) -> None:
        while True:
            try:
                job = self.client.submit(self.request(number))
            except errors.RedisUnavailable:
                time.sleep(0.05)
            else:
                self.acknowledged[job.id] = number
                return

    def kill(self, worker: Worker) -> None:
        """SIGKILL, and what it held is counted."""
        worker.kill()
        self.tally.kills += 1
        self.tally.held += len(self.held_by(worker))

    def held_by(self, worker: Worker) -> list[str]:
        """Open jobs whose record says that this worker runs them."""
        ids = self.open_jobs()
        with self._plain.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hmget(self.ledger.keys.job(job_id), "state", "worker")
            found = pipe.execute()
        return [
            job_id
            for job_id, (state, by) in zip(ids, found, strict=True)
            if state in ("running", "canceling") and str(by).endswith(f":{worker.pid}")
        ]

    def states(self, ids: Sequence[str]) -> list[str | None]:
        while True:
            try:
                with self._plain.pipeline(transaction=False) as pipe:
                    for job_id in ids:
                        pipe.hget(self.ledger.keys.job(job_id), "state")
                    return cast(list[str | None], pipe.execute())
            except redis.exceptions.RedisError:
                time.sleep(0.1)

    def open_jobs(self) -> list[str]:
        ids = [job_id for job_id in self.acknowledged if job_id not in self._final]
        for job_id, state in zip(ids, self.states(ids), strict=True):
            if state in FINAL_STATES:
                self._final.add(job_id)
        return [job_id for job_id in ids if job_id not in self._final]

    def queued(self) -> int:
        """Jobs that wait, by the server."""
        keys = cast(list[str], self._plain.keys("faults:waiting:*"))
        return sum(cast(int, self._plain.zcard(key)) for key in keys)

    @contextmanager
    def submitting(self, count: int) -> Iterator[Callable[[], bool]]:
        """Jobs are submitted beside what the block does; the function says whether any is open.

        After the block all may finish, for `DRAIN_S`.
        """
        begun = time.monotonic()
        failed: list[BaseException] = []

        def run() -> None:
            try:
                self.submit(count)
            except BaseException as error:  # noqa: BLE001 - told below
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        yield lambda: thread.is_alive() or bool(self.open_jobs())
        thread.join()
        if failed:
            raise failed[0]
        self.drain()
        self.tally.seconds = time.monotonic() - begun

    def drain(self) -> None:
        until = time.monotonic() + DRAIN_S
        while self.open_jobs() and time.monotonic() < until:
            time.sleep(0.1)

    # What became of them

    def settle(self) -> Tally:
        """Looks at every acknowledged job."""
        for job_id, number in self.acknowledged.items():
            self._look(job_id, self._expected[number % len(self._expected)])
        return self.tally

    def _look(self, job_id: str, expected: str) -> None:
        tally = self.tally
        try:
            job = self.client.get(job_id)
        except (errors.JobNotFound, errors.JobExpired):
            tally.lost += 1
            return
        if not job.final:
            tally.stuck += 1
            return
        events = self.ledger.read_events(job_id)
        runs = sum(event.type == "stage" and event.stage == "generating" for event in events)
        tally.extra_runs += max(0, runs - 1)
        tally.recovery_s += recoveries(events)
        finals = [
            event for event in events if event.type == "state" and event.state in FINAL_STATES
        ]
        tally.conflict += len(finals) > 1
        if job.state != "succeeded":
            tally.wrong += 1
            tally.notes.setdefault("failures", []).append(
                f"{job.state}: {job.failure.code if job.failure else ''}"
            )
            return
        result = self.client.result(job_id)
        tally.wrong += result.answers[0].text != expected
        path = self.folder / "results" / f"{job_id}.json"
        stored = Result.model_validate_json(path.read_text()) if path.is_file() else None
        if stored is None:
            tally.lost += 1
        else:
            tally.conflict += stored.answers != result.answers


def recoveries(events: Sequence[Event]) -> list[float]:
    """Seconds from the last word of a worker that was lost to the next one's first."""
    running = [event for event in events if event.state == "running"]
    return [
        (after.at - before.at).total_seconds()
        for before, after in pairwise(running)
        if after.attempt > before.attempt
    ]
