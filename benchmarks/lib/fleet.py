"""A fleet without models: announced workers, waiting jobs, and an engine that answers at once.

Everything goes through the public calls of the ledger and the client, so that it costs Redis the same.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from videoqa.client import Client
from videoqa.contract import (
    Answer,
    EngineInfo,
    FrameUsed,
    GenerationInForce,
    JobRequest,
    Priority,
    Result,
    SourceInfo,
    Usage,
    WorkerInfo,
)
from videoqa.jobs import CachedObject, Claim, Ledger, Progress, connect, queue_name
from videoqa.settings import Settings

__all__ = ["Fleet", "Size", "announce", "claim", "finish", "list_queues", "make_request", "work"]

LEASE_S = 600.0
ANSWER = "A red circle moves from left to right, and a blue square stays where it is."


@dataclass(frozen=True)
class Size:
    """Size of a fleet and of its backlog."""

    workers: int = 1
    tenants: int = 1
    models: int = 1
    queued: int = 1000

    def __str__(self) -> str:
        return (
            f"{self.workers} workers, {self.tenants} tenants, {self.models} models, "
            f"{self.queued} queued"
        )


def name_model(number: int) -> str | None:
    """Returns the model's name; jobs of the first name none."""
    return f"organisation/model-{number:02}" if number else None


def list_queues(prefix: str, model: int) -> tuple[str, ...]:
    """Lists the queues of a worker with this model, interactive ones first."""
    names = (name_model(model), "organisation/first") if model == 0 else (name_model(model),)
    priorities: tuple[Priority, ...] = ("interactive", "bulk")
    return tuple(queue_name(prefix, name, priority) for priority in priorities for name in names)


def make_request(tenant: int, model: int = 0, **fields: Any) -> JobRequest:
    number = secrets.randbelow(10**7)
    return JobRequest.model_validate(
        {
            "inputs": [f"s3://videos/2026/11/{number:07}.mp4"],
            "questions": ["What is happening in this video?"],
            "tenant": f"tenant-{tenant:05}",
            "model": name_model(model),
        }
        | fields
    )


def describe(prefix: str, worker: int, model: int) -> WorkerInfo:
    """Describes a worker as real ones describe themselves."""
    now = datetime.now(UTC)
    return WorkerInfo(
        id=f"gpu-host-{worker:04}.example.org:{worker + 1000}",
        model=name_model(model) or "organisation/first",
        model_revision="0123456789abcdef0123456789abcdef01234567",
        queues=list_queues(prefix, model),
        slots=32,
        running=16,
        ready=True,
        engine=EngineInfo(
            running=16, steps=123_456, rows=1_234_567, prompt_tokens=12_345_678, shared=12,
            feature_hits=123, feature_misses=12_345, prefix_hits=123, prefix_misses=12_345,
            kept_bytes=1 << 30,
        ),
        started_at=now,
        seen_at=now,
        host=f"gpu-host-{worker:04}.example.org",
        device="cuda:0",
        version="1.0.0",
        spool="/tmp",
        max_source_bytes=1 << 30,
        output="s3://results/{date}/{job_id}.json",
    )  # fmt: skip


def announce(ledger: Ledger, size: Size) -> None:
    """Announces all workers, which are then known for a minute."""
    for worker in range(size.workers):
        ledger.announce(describe(ledger.keys.prefix, worker, worker % size.models))


def claim(
    ledger: Ledger, queues: Sequence[str], *, worker: str = "gpu-host-0000:1000"
) -> Claim | None:
    """Claims the job whose turn it is, the way that this release's worker does after a bell."""
    token = secrets.token_urlsafe(8)
    return ledger.claim(queues, worker=worker, lease_s=LEASE_S, token=token).claim


def make_result(claim: Claim) -> Result:
    now = datetime.now(UTC)
    request = claim.request
    return Result(
        job_id=claim.job_id,
        answers=tuple(
            Answer(question_id=question.id, question=question.text, text=ANSWER,
                   finish_reason="stop", input_tokens=5000, output_tokens=40)
            for question in request.questions
        ),
        frames=tuple(FrameUsed(input=0, index=n, pts_s=n, asked_s=n) for n in range(8)),
        sources=(SourceInfo(url=request.inputs[0].url, kind="video", size_bytes=1 << 20,
                            width=640, height=360),),
        model="organisation/first", sampling=request.sampling, generation=GenerationInForce.of(request.generation),
        usage=Usage(), attempt=claim.attempt, created_at=now, finished_at=now,
        custom_id=request.custom_id, metadata=request.metadata,
    )  # fmt: skip


def finish(ledger: Ledger, claim: Claim, *, cache_key: str | None = None) -> None:
    """Ends the job as succeeded, with a result of eight frames."""
    result, url = make_result(claim), f"s3://results/2026-11-30/{claim.job_id}.json"
    cached = CachedObject.of(url, b"") if cache_key else None
    ledger.finish(
        claim.job_id, claim.token, result=result, result_url=url, cache_key=cache_key,
        cached=cached, cache_ttl_s=3600.0,
    )  # fmt: skip


class Fleet:
    """A fleet of one size, with its backlog, in one Redis."""

    def __init__(self, settings: Settings, size: Size) -> None:
        self.settings = settings
        self.size = size
        self.client = Client(settings=settings)
        self._connection = connect(settings)
        self.ledger = Ledger(self._connection, url=settings.redis_url, prefix=settings.prefix)
        self.queues = list_queues(settings.prefix, 0)
        self._announced_s = float("-inf")

    def close(self) -> None:
        self.client.close()
        self._connection.close()

    def announce(self) -> None:
        """Announces the workers again, if that is due."""
        if time.monotonic() - self._announced_s > 15:
            announce(self.ledger, self.size)
            self._announced_s = time.monotonic()

    def fill(self) -> None:
        """Submits the backlog: each tenant has jobs for each model, as far as there are enough."""
        backlog = self._make_backlog()
        while chunk := list(islice(backlog, 5000)):  # their jobs are not kept
            self.client.submit_many(chunk)

    def _make_backlog(self) -> Iterator[JobRequest]:
        for number in range(self.size.queued):
            turn, tenant = divmod(number, self.size.tenants)
            yield make_request(tenant, (turn + tenant) % self.size.models)


def work(settings: Settings, seconds: float, threads: int) -> None:
    """Claims jobs of the first model, answers and ends them, with so many threads; prints the number."""
    connection = connect(settings)
    ledger = Ledger(connection, url=settings.redis_url, prefix=settings.prefix)
    queues = list_queues(settings.prefix, 0)
    done = [0] * threads
    begun_s = time.monotonic()
    end_s = begun_s + seconds

    def run(number: int) -> None:
        while time.monotonic() < end_s:
            taken = claim(ledger, queues, worker=f"fake:{number}")
            if taken is None:
                return
            ledger.progress(taken.job_id, taken.token, Progress("sampling"))
            ledger.progress(taken.job_id, taken.token, Progress("generating"))
            finish(ledger, taken)
            done[number] += 1

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    connection.close()
    print(json.dumps({"count": sum(done), "seconds": time.monotonic() - begun_s}))
