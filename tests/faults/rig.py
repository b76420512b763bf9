"""Real servers, production workers and a client under faults, and what became of each job.

Counts come from the client's own list of acknowledged submits, never from what the server says
that there is. Expected answers are those of a run without faults, just before.
"""

from __future__ import annotations

import math
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, cast

import redis
from support.forking.workers import ForkedWorker, clean_environ
from support.processes import wait_until
from support.scenes import Scene, write_clip
from support.sentinels import Replicated

from faults.proxies import Store, Wire
from faults.tally import Tally
from videoqa import errors
from videoqa.client import Client
from videoqa.contract import FINAL_STATES, PRIORITIES, Result, WorkerInfo
from videoqa.jobs import Ledger, connect, queue_name
from videoqa.settings import Settings
from videoqa_worker.embedded import S3Server
from videoqa_worker.embedded.redis_server import RedisServer

__all__ = ["LEASE_S", "Rig"]

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
    "VIDEOQA_PROGRESS_EVERY_S": "0",
    "VIDEOQA_HEARTBEAT_S": "0.3",
    "VIDEOQA_LEASE_S": str(LEASE_S),
    "VIDEOQA_BELL_GRACE_S": "2",
    "VIDEOQA_DRAIN_GRACE_S": "20",
    "VIDEOQA_CACHE_TTL_S": "0",
}
"""Faults are noticed sooner than in production, so that a run takes minutes."""
SCENES = [("red", "circle", "right"), ("green", "triangle", "down"), ("blue", "square", "left")]
QUESTIONS = ["What is moving?", "What color is it?"]


class Rig:
    """A context manager; all of it ends with the block."""

    def __init__(
        self,
        row: str,
        seed: int,
        *,
        redis_config: str = "",
        environ: dict[str, str] | None = None,
        before: str = "",
        max_attempts: int = 20,
        in_flight: int = IN_FLIGHT,
        per_fault: float = math.inf,
        store: Mapping[str, float] | None = None,
        wire: Mapping[str, float] | None = None,
        replicated: Mapping[str, Any] | None = None,
        wait_replicas: int = 0,
    ) -> None:
        """
        Arguments:
            environ: more settings of the workers; a broker's URL is the client's as well.
            in_flight: so many jobs are submitted before the first of them is final.
            per_fault: so many jobs are submitted at each fault that is counted, so that they meet.
            before: Python that each worker runs first, to break something there; what it draws is by
                `FAULTS_SEED`, the seed with the worker's ordinal.
            store: clips and results are in S3, behind a `Store` with these faults.
            wire: workers reach Redis through a `Wire` with these faults.
            replicated: arguments of a `Replicated`, found by its Sentinels, or else by one name for the primary.
            wait_replicas: the setting, of the client and the workers.
        """
        self.tally = Tally(row)
        self.draw = random.Random(seed)
        self.acknowledged: dict[str, int] = {}
        """Job id -> number of the job."""
        self.acknowledged_s: dict[str, float] = {}
        """Job id -> time of its acknowledgement, on the monotonic clock."""
        self.gone: set[str] = set()
        """Jobs whose loss a row counts itself."""
        self.workers: list[ForkedWorker] = []
        self._redis_config = redis_config
        self.environ = dict(environ or {})
        self._max_attempts, self.before = max_attempts, before
        self._in_flight, self._per_fault = in_flight, per_fault
        self._seed, self._faulty_store, self._faulty_wire = seed, store, wire
        self._replicated, self._wait_replicas = replicated, wait_replicas
        self._s3: Any = None
        self._results: Path | None = None
        self._stack = ExitStack()
        self._final: set[str] = set()
        self._count = 0
        self._expected: dict[int, str] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self.redis_url = self._start_redis(stack)
            self.settings = Settings(
                redis_url=self.redis_url,
                prefix="faults",
                broker_url=self.environ.get("VIDEOQA_BROKER_URL"),
                wait_replicas=self._wait_replicas,
            )
            self.client = stack.enter_context(Client(settings=self.settings))
            self.plain = (
                redis.Redis.from_url(self.redis_url, decode_responses=True)
                if self._replicated is None
                else connect(self.settings)
            )
            stack.callback(self.plain.close)
            self.ledger = Ledger(self.plain, url=self.redis_url, prefix="faults")
            self.clips = [
                write_clip(
                    Scene.single(*words),
                    self.folder / f"{n}.mp4",
                    size_px=(160, 120),
                    duration_s=1.0,
                )
                for n, words in enumerate(SCENES)
            ]
            self.inputs = [clip.as_uri() for clip in self.clips]
            self.put_results(self.folder / "results")
            if self._faulty_store is not None:
                self._use_s3(stack, self._faulty_store)
            if self._faulty_wire is not None:
                self.wire = stack.enter_context(
                    Wire(self.redis.port, self._seed, **self._faulty_wire)
                )
                self.redis_url = self.redis.url.replace(f":{self.redis.port}", f":{self.wire.port}")
            stack.callback(self._end_workers)
            self._stack = stack.pop_all()
        return self

    def _start_redis(self, stack: ExitStack) -> str:
        """Starts the server or the servers; returns the URL by which clients find the primary."""
        if self._replicated is None:
            self.redis = RedisServer(self.folder / "redis", extra=self._redis_config)
            stack.callback(self._stop_redis)
            return self.redis.url
        self.replicated = stack.enter_context(Replicated(self.folder / "redis", **self._replicated))
        self.redis = self.replicated.servers[0]
        if self.replicated.sentinels:
            return self.replicated.url
        self.wire = stack.enter_context(Wire(self.redis.port, self._seed))
        return self.redis.url.replace(f":{self.redis.port}", f":{self.wire.port}")

    def _use_s3(self, stack: ExitStack, faults: Mapping[str, float]) -> None:
        (self.folder / "s3").mkdir()
        server = stack.enter_context(S3Server(self.folder / "s3"))
        self.store = stack.enter_context(Store(server.port, self._seed, faults, silent_s=4.0))
        self._s3 = server.client()
        self._s3.create_bucket(Bucket="faults")
        for clip in self.clips:
            self._s3.put_object(Bucket="faults", Key=clip.name, Body=clip.read_bytes())
        self.inputs = [f"s3://faults/{clip.name}" for clip in self.clips]
        self._results, self.output = None, "s3://faults/results/{job_id}.json"
        self.environ |= server.environment() | {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.store.server_port}",
            "VIDEOQA_SOURCE_READ_TIMEOUT_S": "2",
        }

    def put_results(self, folder: Path, **environ: str) -> None:
        """Has results written into this folder from now on; `environ` is for the workers to come."""
        self._results, self.output = folder, folder.as_uri() + "/{job_id}.json"
        self.environ |= environ

    def stored(self, job_id: str) -> str | None:
        """The result object as it lies there, read past all faults."""
        if self._results is not None:
            path = self._results / f"{job_id}.json"
            return path.read_text() if path.is_file() else None
        try:
            found = self._s3.get_object(Bucket="faults", Key=f"results/{job_id}.json")
        except self._s3.exceptions.NoSuchKey:
            return None
        return str(found["Body"].read().decode())

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _end_workers(self) -> None:
        for worker in self.workers:
            worker.kill_group()

    def _stop_redis(self) -> None:
        self.redis.stop()  # the one that runs then, not the first

    def restart_redis(self) -> None:
        """Starts Redis again with the same data, on the same port."""
        self.redis = RedisServer(
            self.folder / "redis",
            port=self.redis.port,
            password=self.redis.password,
            extra=self._redis_config,
        )

    # Workers

    def spawn(self, **environ: str) -> ForkedWorker:
        """Forks another worker; does not wait until it is ready."""
        self._count += 1
        own = {
            "VIDEOQA_REDIS_URL": self.redis_url,
            "VIDEOQA_PREFIX": "faults",
            "VIDEOQA_WAIT_REPLICAS": str(self._wait_replicas),
            "VIDEOQA_OUTPUT": self.output,
            "FAULTS_SEED": f"{self._seed}.{self._count}",
        }
        worker = ForkedWorker(
            self.folder / f"worker-{self._count}.log",
            clean_environ() | SETTINGS | own | self.environ | environ,
            before=self.before,
        )
        self.workers.append(worker)
        return worker

    def start(self, workers: int) -> None:
        """Starts workers, and learns the answers that they give without faults."""
        for _ in range(workers):
            self.spawn()
        self.wait_ready(workers)
        self.learn()

    def wait_ready(self, count: int) -> None:
        """Waits until so many of the workers that run are ready; fails if fewer run."""

        def ready() -> bool:
            pids = {str(worker.pid) for worker in self.workers if worker.running()}
            assert len(pids) >= count, f"{len(pids)} of {count} workers run: {self._last_words()}"
            found = [
                info.id
                for info in self.client.workers()
                if info.ready and info.id.rpartition(":")[2] in pids
            ]
            return len(found) >= count

        wait_until(ready, every_s=0.05)

    def _last_words(self) -> str:
        return "; ".join(f"{worker.pid}: {worker.log_tail(10)}" for worker in self.workers)

    def let_work(self, shortest_s: float, longest_s: float) -> None:
        """Waits so long after a worker is up: kills that come faster than starts would let no job end."""
        self.wait_ready(1)
        time.sleep(self.draw.uniform(shortest_s, longest_s))

    def replace(self, worker: ForkedWorker) -> ForkedWorker:
        self.workers.remove(worker)
        return self.spawn()

    def replace_ended(self) -> None:
        """Replaces workers that ended by themselves; each counts as a kill."""
        for worker in [worker for worker in self.workers if not worker.running()]:
            self.tally.kills += 1
            self.replace(worker)

    # Jobs

    def request(self, number: int) -> dict[str, Any]:
        kind = number % (len(self.clips) * len(QUESTIONS))
        clip, question = divmod(kind, len(QUESTIONS))
        return {
            "inputs": [self.inputs[clip]],
            "questions": [QUESTIONS[question]],
            "sampling": {"frames": 4},
            "max_attempts": self._max_attempts,
            "idempotency_key": f"job-{number}",
            "priority": ("interactive", "bulk")[number % 2],
        }

    def learn(self) -> None:
        """Learns the expected answers, without faults."""
        kinds = len(self.clips) * len(QUESTIONS)
        jobs = [
            self.client.submit(self.request(n) | {"idempotency_key": f"learn-{n}"})
            for n in range(kinds)
        ]
        for n, job in enumerate(jobs):
            self.client.wait(job.id, timeout_s=60)
            self._expected[n] = self.said(self.client.result(job.id))

    def said(self, result: Result) -> str:
        """Returns the part of a result that is compared."""
        return result.answers[0].text

    def submit(self, count: int) -> None:
        """Submits so many jobs, never more than `in_flight` of them not final.

        As a careful client does, again with the same key where Redis gave no answer.
        """
        first = self.tally.jobs
        for number in range(first, first + count):
            while number % 16 == 0 and len(self.open_jobs()) > self._in_flight:
                time.sleep(0.05)
            while number >= self._per_fault * (self.tally.kills + 1):
                time.sleep(0.05)
            self._acknowledge(number)
        self.tally.jobs += count

    def _acknowledge(self, number: int) -> None:
        while True:
            try:
                job = self.client.submit(self.request(number))
            except errors.Unavailable:
                time.sleep(0.05)
            else:
                self.acknowledged_s[job.id] = time.monotonic()
                self.acknowledged[job.id] = number
                return

    def kill(self, worker: ForkedWorker) -> None:
        """Sends SIGKILL, and counts the jobs that the worker held."""
        worker.kill_group()
        time.sleep(0.1)  # what it said before is heard
        self.tally.kills += 1
        self.tally.held += len(self.held_by(worker))

    def held_by(self, worker: ForkedWorker) -> list[str]:
        """Returns the open jobs whose record says that this worker runs them."""
        ids = self.open_jobs()
        with self.plain.pipeline(transaction=False) as pipe:
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
                with self.plain.pipeline(transaction=False) as pipe:
                    for job_id in ids:
                        pipe.hget(self.ledger.keys.job(job_id), "state")
                    return cast(list[str | None], pipe.execute())
            except redis.exceptions.RedisError:
                time.sleep(0.1)

    def open_jobs(self) -> list[str]:
        ended = self._final | self.gone
        # A copy, in one piece: another thread submits meanwhile.
        ids = [job_id for job_id in list(self.acknowledged) if job_id not in ended]
        for job_id, state in zip(ids, self.states(ids), strict=True):
            if state in FINAL_STATES:
                self._final.add(job_id)
        return [job_id for job_id in ids if job_id not in self._final]

    def count_ended(self) -> int:
        """Returns how many jobs have ended, as far as `open_jobs` has seen."""
        return len(self._final)

    def look_again(self) -> None:
        """Forgets which jobs were final: Redis lost its last words."""
        self._final.clear()

    def expected(self, number: int) -> str:
        return self._expected[number % len(self._expected)]

    def memory_bytes(self) -> int:
        return int(cast(dict[str, Any], self.plain.info("memory"))["used_memory_dataset"])

    def request_bytes(self) -> int:
        """Returns the size of one job's request, as its record has it."""
        job_id = next(iter(self.acknowledged))
        return len(str(self.plain.hget(self.ledger.keys.job(job_id), "request")))

    def describe(self) -> WorkerInfo:
        """Returns the description of a worker that only reaps."""
        queues = tuple(queue_name("faults", None, priority) for priority in PRIORITIES)
        now = datetime.now(UTC)
        return WorkerInfo(
            id="reaper:0", model="demo", queues=queues, slots=1, running=0, ready=False,
            started_at=now, seen_at=now,
        )  # fmt: skip

    def list_jobs(self) -> list[str]:
        """Returns the ids of all records there are."""
        found = cast(list[str], self.plain.keys(self.ledger.keys.job("*")))
        return [key.rpartition(":")[2] for key in found]

    def queued(self) -> int:
        """Returns how many jobs wait, by the server."""
        keys = cast(list[str], self.plain.keys("faults:waiting:*"))
        return sum(cast(int, self.plain.zcard(key)) for key in keys)

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

        thread = threading.Thread(target=run, daemon=True)  # a row that fails is not waited for
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
        """Tallies every acknowledged job."""
        for job_id, number in self.acknowledged.items():
            if job_id in self.gone:
                continue
            self._look(job_id, self.expected(number))
        return self.tally

    def _look(self, job_id: str, expected: str) -> None:
        tally = self.tally
        try:
            job = self.client.get(job_id)
        except (errors.JobNotFound, errors.JobExpired):
            tally.lost += 1
            return
        until = time.monotonic() + DRAIN_S
        while (
            not job.final and time.monotonic() < until
        ):  # a failover since `drain` has taken its end back
            time.sleep(0.1)
            job = self.client.get(job_id)
        if not job.final:
            tally.stuck += 1
            return
        tally.count(self.ledger.read_events(job_id))
        if job.state != "succeeded":
            tally.wrong += 1
            tally.notes.setdefault("failures", []).append(
                f"{job.state}: {job.failure.code if job.failure else ''}"
            )
            return
        result = self.client.result(job_id)
        if self.said(result) != expected:
            tally.wrong += 1
            tally.notes.setdefault("answers", []).append(
                f"{self.said(result)!r}, not {expected!r}: {[s.url for s in result.sources]}, "
                f"attempt {result.attempt}, {len(result.frames)} frames, {result.warnings}"
            )
        stored = self.stored(job_id)
        if stored is None:
            tally.lost += 1
        else:
            # Of a primary's past and future each may have had an attempt of this number: their times differ.
            tally.conflict += self.said(Result.model_validate_json(stored)) != self.said(result)
