"""A worker killed with SIGKILL in any stage of a job: another one answers it, once and rightly."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.processes import wait_until
from support.scenes import Scene, write_clip
from support.servers import WRITER
from support.stack import WorkerProcess

from videoqa.client import Client
from videoqa.contract import Job, WorkerInfo
from videoqa.jobs import connect
from videoqa.jobs.keys import Keys
from videoqa.settings import Settings
from videoqa_worker.embedded import S3Server

SCENE = Scene.single("red", "circle", "right")
QUESTION, ANSWER = "What is moving?", "a red circle"


class Workers:
    """One worker at a time; the survivor of a test is the victim of the next."""

    def __init__(self, settings: Settings, client: Client, folder: Path) -> None:
        self._settings = settings
        self._client = client
        self._folder = folder
        self._count = 0
        self._now: WorkerProcess | None = None

    def current(self, **environ: str) -> WorkerProcess:
        if self._now is None or environ or not self._now.running():
            self.stop()
            self._count += 1
            # With frames of an earlier job a worker would not sample.
            kept = {"VIDEOQA_SOURCE_READ_TIMEOUT_S": "30", "VIDEOQA_FRAME_CACHE_BYTES": "0"}
            environ = {**kept, **environ}
            self._now = WorkerProcess(self._settings, self._folder / str(self._count), **environ)
            self._now.wait_ready(self._client)
        return self._now

    def stop(self) -> None:
        if self._now is not None:
            self._now.stop()
            self._now = None


@pytest.fixture(scope="module")
def kill_settings(stack_settings: Settings) -> Settings:
    return stack_settings.model_copy(update={"prefix": "kill"})


@pytest.fixture(scope="module")
def client(kill_settings: Settings) -> Iterator[Client]:
    with Client(settings=kill_settings) as client:
        yield client


@pytest.fixture(scope="module")
def workers(
    kill_settings: Settings, client: Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workers]:
    made = Workers(kill_settings, client, tmp_path_factory.mktemp("workers"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip large enough that taking 250 frames is no matter of milliseconds."""
    folder = tmp_path_factory.mktemp("clips")
    return write_clip(SCENE, folder / "long.mp4", size_px=(640, 360), duration_s=10)


@contextmanager
def silent_server() -> Iterator[int]:
    """Accepts connections and never answers: whoever asks it is held."""
    held: list[socket.socket] = []
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)

        def accept() -> None:
            while not done.is_set():
                with suppress(TimeoutError):
                    held.append(server.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            done.set()
            thread.join()
    for connection in held:
        connection.close()


def hold_in(client: Client, worker: WorkerProcess, job_id: str, stage: str) -> Job | None:
    """Freezes the worker when the job enters the stage; None if it was quicker than we."""
    for event in client.events(job_id, timeout_s=60):
        if event.stage == stage:
            os.kill(worker.pid, signal.SIGSTOP)
            job = client.get(job_id)
            if job.stage == stage and job.state == "running":
                return job
            os.kill(worker.pid, signal.SIGCONT)
            return None
    return None


def catch_in(client: Client, workers: Workers, stage: str, submit: Callable[[], Job]) -> Job:
    """Submits jobs until one is caught in the stage, and kills its worker there."""
    worker = workers.current()
    for _ in range(20):
        held = hold_in(client, worker, submit().id, stage)
        if held is not None:
            worker.kill()
            return held
    raise AssertionError(f"20 jobs were too quick to be caught while {stage}")


def expect_answered_by_another(
    client: Client, workers: Workers, job: Job, answers: int = 1
) -> None:
    workers.current()
    ended = client.wait(job.id, timeout_s=60)
    assert (ended.state, ended.attempt, ended.failure) == ("succeeded", 2, None)
    assert ended.worker != job.worker
    result = client.result(job.id)
    assert result.attempt == 2
    assert [answer.text for answer in result.answers] == [ANSWER] * answers
    assert [event.state for event in client.events(job.id)].count("succeeded") == 1


def request(clip: Path, **fields: Any) -> dict[str, Any]:
    return {"inputs": [clip.as_uri()], "questions": [QUESTION], "cache": "off", **fields}


def test_a_job_whose_worker_is_killed_while_fetching_is_answered_by_another(
    client: Client, workers: Workers, clip: Path
) -> None:
    # The clip is there by the time that the other worker asks for it.
    with silent_server() as port:
        url = f"http://127.0.0.1:{port}/clip.mp4"
        job = catch_in(
            client, workers, "fetching", lambda: client.submit(request(clip, inputs=[url]))
        )
    with _serving(clip, port):
        expect_answered_by_another(client, workers, job)


@contextmanager
def _serving(clip: Path, port: int) -> Iterator[None]:
    """A server that has the clip, on the port of the silent one."""
    (clip.parent / "clip.mp4").write_bytes(clip.read_bytes())
    handler = partial(SimpleHTTPRequestHandler, directory=str(clip.parent))
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def test_a_job_whose_worker_is_killed_while_sampling_is_answered_by_another(
    client: Client, workers: Workers, clip: Path
) -> None:
    job = catch_in(
        client, workers, "sampling", lambda: client.submit(request(clip, sampling={"frames": 8}))
    )
    expect_answered_by_another(client, workers, job)


def test_a_job_whose_worker_is_killed_while_generating_is_answered_by_another(
    client: Client, workers: Workers, clip: Path
) -> None:
    many = [QUESTION] * 32
    job = catch_in(
        client, workers, "generating", lambda: client.submit(request(clip, questions=many))
    )
    expect_answered_by_another(client, workers, job, answers=len(many))


def test_a_job_whose_worker_is_killed_while_storing_is_answered_by_another(
    client: Client, workers: Workers, clip: Path, s3_server: S3Server
) -> None:
    output = "s3://open/killed/{job_id}.json"
    with silent_server() as port:
        silent = {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}"}
        workers.current(**s3_server.environment(WRITER) | silent)
        submit = lambda: client.submit(request(clip, output=output))  # noqa: E731
        job = catch_in(client, workers, "storing", submit)
    workers.current(**s3_server.environment(WRITER))
    expect_answered_by_another(client, workers, job)
    found = s3_server.client().list_objects_v2(Bucket="open", Prefix="killed/")
    assert [item["Key"] for item in found["Contents"]] == [f"killed/{job.id}.json"]


def test_a_job_that_kills_each_of_its_workers_ends_in_the_dead_letters(
    client: Client, workers: Workers, clip: Path
) -> None:
    many = [QUESTION] * 32
    job = catch_in(
        client, workers, "generating",
        lambda: client.submit(request(clip, questions=many, max_attempts=1)),
    )  # fmt: skip
    workers.current()
    ended = client.wait(job.id, timeout_s=60)
    assert ended.failure is not None
    assert (ended.state, ended.failure.code, ended.failure.stage) == (
        "failed",
        "worker_lost",
        "generating",
    )
    assert client.retry(job.id).state in ("queued", "running")  # the worker may have it already
    assert client.wait(job.id, timeout_s=60).state == "succeeded"
    lost, succeeded = client.timeline(job.id).attempts
    assert (lost.outcome, lost.failure and lost.failure.code) == ("failed", "worker_lost")
    assert lost.worker != succeeded.worker
    assert lost.stages.keys() >= {"fetching", "generating"}
    assert succeeded.stages.keys() >= {"fetching", "sampling", "generating"}


def _submit_silent(client: Client, clip: Path, port: int) -> Job:
    """Submits a job that is in the middle of its only attempt: its video's server says nothing."""
    url = f"http://127.0.0.1:{port}/clip.mp4"
    job = client.submit(request(clip, inputs=[url], max_attempts=1))
    for event in client.events(job.id, timeout_s=30):
        if event.stage == "fetching":
            break
    return job


def find_draining(client: Client) -> list[WorkerInfo]:
    return [info for info in client.workers() if info.state == "draining"]


def test_a_worker_that_is_killed_while_it_drains_costs_its_job_no_attempt(
    client: Client, workers: Workers, clip: Path
) -> None:
    worker = workers.current()
    with silent_server() as port:
        job = _submit_silent(client, clip, port)
        worker.signal(signal.SIGTERM)
        with connect(client.settings) as redis_client:
            key = Keys(client.settings.prefix).job(job.id)
            wait_until(lambda: redis_client.hexists(key, "draining"))
        wait_until(lambda: find_draining(client))
        info = find_draining(client)[0]
        assert (info.ready, info.job_ids, info.device) == (False, (job.id,), "cpu")
        assert info.id == client.get(job.id).worker
        assert worker.running(), "the job may finish"
        worker.kill()
    with _serving(clip, port):
        expect_answered_by_another(client, workers, client.get(job.id))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_worker_that_stops_gives_its_jobs_back(
    client: Client, workers: Workers, clip: Path, how: signal.Signals
) -> None:
    # SIGTERM would let the job finish for 25 s; the others give it back at once.
    grace = {"VIDEOQA_DRAIN_GRACE_S": "0"} if how == signal.SIGTERM else {}
    worker = workers.current(**grace)
    with silent_server() as port:
        job = _submit_silent(client, clip, port)
        worker.signal(how)
        assert worker.wait() == 0
    given_back = client.get(job.id)
    assert given_back.state == "queued", given_back.failure
    with _serving(clip, port):
        workers.current()
        ended = client.wait(job.id, timeout_s=60)
    assert (ended.state, ended.attempt) == ("succeeded", 2)
