"""Calls that a user would write, held by strict mypy. Never run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, assert_type

from videoqa import (
    Answer,
    AsyncClient,
    Client,
    Event,
    Failure,
    FrameUsed,
    Generation,
    Image,
    Job,
    JobRequest,
    Question,
    RequestFields,
    Result,
    Sampling,
    Segment,
    Settings,
    Video,
    VideoQAError,
    __version__,
)
from videoqa.contract import (
    FINAL_STATES,
    Cue,
    JobState,
    WorkerInfo,
    as_srt,
    as_vtt,
    make_cues,
    parse_request,
)
from videoqa.errors import JobFailed, RedisUnavailable, RequestError, Stage, WaitTimeout
from videoqa.testing import InMemoryClient
from videoqa_worker import VideoQA

assert_type(__version__, str)


def submitting(client: Client) -> None:
    assert_type(client.submit(inputs=["s3://b/k"], questions=["What is it?"]), Job)
    assert_type(client.submit({"inputs": "s3://b/k", "questions": "What is it?"}), Job)
    request = JobRequest(
        inputs=(Video(url="s3://b/k", start=1.5, end=9), Image(url="https://h/p.jpg")),
        questions=(Question(id="q1", text="<image> <video>?"),),
        sampling=Sampling(frames=16),
        generation=Generation(max_new_tokens=64, temperature=0.7, seed=1, stop=("END",)),
        model="org/m",
        priority="bulk",
        start_by=datetime.now(UTC),
        timeout_s=60,
        max_attempts=2,
        output="s3://b/{job_id}",
        idempotency_key="order-17",
        metadata={"tenant": "a"},
    )
    assert_type(client.submit(request), Job)
    assert_type(request.inputs, tuple[Video | Image, ...])
    assert_type(request.priority, Literal["interactive", "bulk"])
    assert_type(parse_request("{}"), JobRequest)


async def submitting_in_other_ways(
    client: Client, asynchronous: AsyncClient, memory: InMemoryClient, row: dict[str, Any]
) -> None:
    client.submit(inputs=Path("clip.mp4"), questions="?", sampling={"method": "fps", "fps": 2})
    client.submit(inputs=[Path("a.mp4"), {"url": Path("b.mp4"), "end": 9.5}], questions=["?"])
    client.submit(
        inputs=[{"kind": "image", "url": "s3://b/k"}],
        questions=[{"id": "a", "text": "?"}, Question(id="b", text="?")],
        generation={"stop": ["END"]},
        tags=("nightly",),
        summary=True,
    )
    client.submit(**row)
    client.submit(parse_request(row))
    typed: RequestFields = {"inputs": "s3://b/k", "questions": "?", "priority": "bulk"}
    memory.submit(typed)
    client.submit_many([typed, parse_request(row), {"inputs": "s3://b/k", "questions": "?"}])
    assert_type(await asynchronous.submit(inputs="s3://b/k", questions="?", tenant="a"), Job)
    assert_type(client.for_tenant("a"), Client)
    assert_type(memory.for_tenant("a"), InMemoryClient)
    assert_type(asynchronous.for_tenant("a"), AsyncClient)


def following(client: Client, job_id: str) -> None:
    job = client.get(job_id)
    assert_type(job.state, JobState)
    assert_type(job.final, bool)
    assert_type(job.stage, Stage | None)
    assert_type(job.failure, Failure | None)
    assert_type(job.finished_at, datetime | None)
    assert_type(job.state in FINAL_STATES, bool)

    def show(event: Event) -> None:
        assert_type(event.done, int | None)

    assert_type(client.wait(job_id, timeout_s=60, on_event=show), Job)
    assert_type(client.events(job_id, after="0", timeout_s=1.5), Iterator[Event])
    assert_type(client.cancel(job_id), Job)
    assert_type(client.retry(job_id), Job)
    assert_type(client.workers(), list[WorkerInfo])
    assert_type(client.submit_many([{"inputs": "s3://b/k", "questions": "?"}]), list[Job])
    assert_type(client.get_many(["job_1"]), list[Job | None])
    page = client.list(state="failed", tag="nightly", model="m", since=None, limit=10)
    assert_type(page.jobs, tuple[Job, ...])
    assert_type(page.next_cursor, str | None)
    for piece in client.stream("job_1", timeout_s=60):
        assert_type(piece.text, str)
    assert_type(client.replay(code="worker_lost"), list[Job])
    assert_type(client.ping(), str)


def reading(client: Client, job_id: str) -> None:
    result = client.result(job_id)
    assert_type(result, Result)
    assert_type(result.answers, tuple[Answer, ...])
    assert_type(result.answers[0].text, str)
    assert_type(result.answers[0].finish_reason, Literal["stop", "length", "stop_string"])
    assert_type(result.frames, tuple[FrameUsed, ...])
    assert_type(result.frames[0].index, int | None)
    assert_type(result.frames[0].pts_s, float)


def configuring() -> None:
    assert_type(Settings.from_environment({"VIDEOQA_PREFIX": "mine"}, redis_url=None), Settings)
    assert_type(Client.from_environment(), Client)
    with Client("redis://127.0.0.1:6379/0") as by_url, Client(settings=Settings()) as by_settings:
        assert_type(by_url, Client)
        assert_type(by_settings.settings, Settings)


def failing(client: Client) -> None:
    try:
        client.submit(inputs=[], questions=[])
    except RequestError as error:
        assert_type(error.param, str | None)
        assert_type(error.code, str)
    except (RedisUnavailable, WaitTimeout, JobFailed) as error:
        assert_type(error.retryable, bool)
        if isinstance(error, JobFailed) and error.failure is not None:
            assert_type(error.failure.code, str)
            assert_type(error.failure.stage, Stage | None)
    except VideoQAError as error:
        assert_type(error.message, str)
        assert_type(error.stage, Stage | None)


async def wrong_requests(client: Client, asynchronous: AsyncClient, memory: InMemoryClient) -> None:
    """Each ignore is a wrong call that mypy finds, as `mistakes`; the others of the line are right."""
    url, q = "s3://b/k", "?"
    client.submit(inputs=url, questions=q, modle="m")  # type: ignore[call-arg]
    client.submit(inputs=url, questions=q, priority="urgent")  # type: ignore[arg-type]
    client.submit(inputs=url, questions=q, cache="never")  # type: ignore[arg-type]
    client.submit(inputs=url, questions=q, timeout_s="60")  # type: ignore[arg-type]
    client.submit(inputs=url, questions=q, tags="nightly")  # type: ignore[arg-type]
    client.submit(inputs=7, questions=q)  # type: ignore[arg-type]
    client.submit(inputs=url, questions=q, sampling={"method": "fsp"})  # type: ignore[arg-type]
    client.submit(inputs=url, questions=q, sampling={"framse": 8})  # type: ignore[arg-type]
    client.submit({"inputs": url, "questions": q, "modle": "m"})  # type: ignore[arg-type]
    client.submit({"inputs": url})  # type: ignore[arg-type]
    client.submit_many([{"inputs": url, "questions": q, "modle": "m"}])  # type: ignore[list-item]
    client.submit_many([{"inputs": url, "questions": q, "cache": "never"}])  # type: ignore[list-item]
    await asynchronous.submit(inputs=url, questions=q, modle="m")  # type: ignore[call-arg]
    await asynchronous.submit(inputs=url, questions=q, cache="never")  # type: ignore[arg-type]
    memory.submit(inputs=url, questions=q, modle="m")  # type: ignore[call-arg]
    memory.submit(inputs=url, questions=q, cache="never")  # type: ignore[arg-type]


def mistakes(client: Client, job: Job) -> None:
    """Each ignore here is a mistake that mypy finds; strict mypy refuses one without need."""
    client.submit(7)  # type: ignore[arg-type]
    client.get(job)  # type: ignore[arg-type]
    client.wait(job.id, 60)  # type: ignore[call-arg]
    job.state = "succeeded"  # type: ignore[misc]
    Client(Settings())  # type: ignore[arg-type]
    Video(uri="s3://b/k")  # type: ignore[call-arg]


def captioning(client: Client) -> None:
    job = client.submit(
        inputs=["s3://b/k"],
        questions=["What happens?"],
        sampling=Sampling(method="segment", segment_s=30, overlap_s=5),
        summary=True,
    )
    result = client.result(job.id)
    assert_type(result.segments, tuple[Segment, ...])
    for part in result.segments:
        assert_type(part.start, float)
        assert_type(part.answers, tuple[Answer, ...])
        assert_type(part.text, str)
    assert_type(make_cues(result), list[Cue])
    assert_type(as_vtt(make_cues(result)), str)
    assert_type(as_srt(make_cues(result)), str)


def asking_without_a_queue(qa: VideoQA, rows: Iterator[dict[str, Any]]) -> None:
    with VideoQA("demo", on_state=print, max_batch=4) as own:
        assert_type(own, VideoQA)
    assert_type(qa.ask("clip.mp4", "What?"), Result)
    assert_type(qa.ask([Path("a.mp4"), Video(url="s3://b/k")], ["What?"], summary=True), Result)
    assert_type(qa.ask(inputs="s3://b/k", questions="What?", sampling={"frames": 4}), Result)
    assert_type(qa.ask("clip.mp4", "What?", on_error="return"), Result | Failure)
    assert_type(qa.ask_many(["a.mp4", Path("b.mp4")], "What?"), Iterator[Result])
    assert_type(qa.ask_many(rows, on_error="return"), Iterator[Result | Failure])
    qa.ask("clip.mp4", "What?", on_progress=lambda step: print(step.text), stream=True)
    qa.ask("clip.mp4", "What?", sample={})  # type: ignore[call-overload]
    qa.ask("clip.mp4", "What?", on_error="ignore")  # type: ignore[call-overload]
