"""Examples of answers, which a test holds to their schemas and to the answers of a real gateway."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from videoqa.contract import (
    Answer,
    ArchiveRun,
    Attempt,
    Attention,
    BulkAction,
    BulkPreview,
    BulkRefusal,
    DeadCount,
    DeadGroup,
    DeadGroups,
    FailedRow,
    Failure,
    FrameUsed,
    GenerationInForce,
    Job,
    JobCount,
    JobFilter,
    JobSummary,
    JobTimeline,
    ModelStats,
    QueueInfo,
    Result,
    RunFailures,
    Sampling,
    SourceInfo,
    StageSeconds,
    Stats,
    StatsPoint,
    StatsTotals,
    Usage,
    UsageRow,
    Warn,
    WorkerInfo,
    as_srt,
    as_vtt,
    make_cues,
    parse_request,
)
from videoqa.gateway.access.keys import ApiKey
from videoqa.gateway.reference.parameters import (
    EXAMPLE_BATCH,
    EXAMPLE_BULK,
    EXAMPLE_DELIVERY,
    EXAMPLE_FILE,
    EXAMPLE_JOB,
    EXAMPLE_KEY,
    EXAMPLE_RUN,
    EXAMPLE_UPLOAD,
)
from videoqa.gateway.routes.answers import JobLinks, LinkedDelivery
from videoqa.gateway.webhooks import Delivery, DeliveryAttempt

__all__ = [
    "ASKED",
    "AUDIT",
    "BATCH",
    "BATCHES",
    "BATCH_ASKED",
    "BATCH_CANCELLING",
    "BULK_ACTION",
    "BULK_ASKED",
    "BULK_PREVIEW",
    "BULK_STOPPED",
    "CANCELED_JOB",
    "CHAT_ANSWER",
    "CHAT_ASKED",
    "CHAT_CHUNKS",
    "DEAD_COUNT",
    "DEAD_GROUPS",
    "DELIVERY",
    "DONE_JOB",
    "ESTIMATE",
    "EVENTS",
    "FILE",
    "FILES",
    "FILE_DELETED",
    "FILE_SENT",
    "KEY",
    "KEY_ASKED",
    "MADE_KEY",
    "MODEL",
    "PREVIEW",
    "PREVIEWED",
    "QUEUE",
    "QUEUED_JOB",
    "RESULT",
    "RESULT_SRT",
    "RESULT_TEXT",
    "RESULT_VTT",
    "RUN",
    "RUN_ANNOUNCED",
    "RUN_LISTED",
    "SECRET",
    "STATS",
    "TIMELINE",
    "UPLOAD",
    "UPLOADED",
    "UPLOAD_ASKED",
    "UPLOAD_CANCELLED",
    "UPLOAD_END",
    "UPLOAD_PART",
    "USAGE",
    "WORKER",
]

_AT = datetime(2026, 11, 30, 9, 30, tzinfo=UTC)
_URL = "https://videos.example.org/parade.mp4"
_QUESTION = "What does the crowd watch?"
_TEXT = "A brass band marches past, followed by two red floats."

MODEL = "llava-hf/llava-onevision-qwen2-0.5b-ov-hf"

ASKED: dict[str, Any] = {
    "inputs": [{"kind": "video", "url": _URL, "start": 0, "end": 30}],
    "questions": [_QUESTION],
    "sampling": {"method": "uniform", "frames": 8},
    "tags": ["parade"],
}
"""The body of a request."""


def _describe(job: Job) -> dict[str, Any]:
    return job.model_dump(mode="json") | {"links": JobLinks.make(job.id).model_dump()}


_QUEUED = Job(
    id=EXAMPLE_JOB, state="queued", created_at=_AT, position=0, tenant="acme", tags=("parade",),
    summary=JobSummary(question=_QUESTION, questions=1, input="parade.mp4", inputs=1),
)  # fmt: skip
_DONE = _QUEUED.model_copy(
    update={
        "state": "succeeded",
        "position": None,
        "attempt": 1,
        "started_at": _AT + timedelta(seconds=1),
        "finished_at": _AT + timedelta(seconds=4),
        "expires_at": _AT + timedelta(days=1, seconds=4),
        "worker": "gpu-1:1200",
    }
)
_RESULT = Result(
    job_id=EXAMPLE_JOB,
    answers=(
        Answer(
            question_id="q1", question=_QUESTION, text=_TEXT, finish_reason="stop",
            input_tokens=1612, output_tokens=13, first_token_s=0.42,
        ),
    ),
    frames=(
        FrameUsed(input=0, index=0, pts_s=0.0, asked_s=0.0),
        FrameUsed(input=0, index=375, pts_s=15.0, asked_s=15.0),
    ),
    sources=(
        SourceInfo(
            url=_URL, kind="video", size_bytes=4_812_066, etag='"6f2b"', start=0.0, end=30.0, duration_s=61.4,
            start_offset_s=0.0, fps=25.0, width=1280, height=720, codec="h264", format="mp4",
        ),
    ),
    model=MODEL,
    sampling=Sampling(frames=2),
    generation=GenerationInForce(),
    usage=Usage(
        input_tokens=1612, output_tokens=13, frames=2, bytes_fetched=1_310_720, queued_s=1.0, fetching_s=0.3,
        sampling_s=0.2, generating_s=1.9,
    ),
    warnings=(Warn(code="fewer_frames", message="got 2 frames, asked for 8"),),
    attempt=1,
    created_at=_AT,
    finished_at=_AT + timedelta(seconds=4),
    tenant="acme",
)  # fmt: skip

QUEUED_JOB = _describe(_QUEUED)
RESULT: dict[str, Any] = _RESULT.model_dump(mode="json")
RESULT_TEXT = f"{_TEXT}\n"
RESULT_VTT = as_vtt(make_cues(_RESULT))
RESULT_SRT = as_srt(make_cues(_RESULT))
DONE_JOB = _describe(_DONE) | {"result": RESULT}
SEEN_JOB = _describe(_DONE.model_copy(update={"request": parse_request(ASKED)}))
"""A job with its request, as `GET /v1/jobs/{job_id}` shows it."""
CANCELED_JOB = _describe(
    _QUEUED.model_copy(
        update={
            "state": "canceled",
            "position": None,
            "finished_at": _AT + timedelta(seconds=2),
            "expires_at": _AT + timedelta(days=1, seconds=2),
        }
    )
)
EVENTS = (
    'event: state\nid: 1764495000000-0\ndata: {"id": "1764495000000-0", "type": "state", "state": "queued", '
    '"attempt": 0, "at": "2026-11-30T09:30:00Z"}\n\n'
    'event: stage\nid: 1764495001200-0\ndata: {"id": "1764495001200-0", "type": "stage", "state": "running", '
    '"stage": "fetching", "attempt": 1, "at": "2026-11-30T09:30:01.200000Z"}\n\n'
    'event: state\nid: 1764495004000-0\ndata: {"id": "1764495004000-0", "type": "state", "state": "succeeded", '
    '"attempt": 1, "at": "2026-11-30T09:30:04Z"}\n\n'
)
QUEUE: dict[str, Any] = QueueInfo(
    priority="interactive", waiting=3, running=2, tenants=1, paused=False, workers=1, slots=16,
    oldest_at=_AT, oldest_s=0.8,
).model_dump(mode="json")  # fmt: skip
WORKER: dict[str, Any] = WorkerInfo(
    id="gpu-1:1200", model=MODEL, queues=("videoqa..interactive", "videoqa..bulk"), slots=16, running=2,
    ready=True, started_at=_AT - timedelta(hours=3), seen_at=_AT, host="gpu-1", device="cuda:0",
).model_dump(mode="json")  # fmt: skip

_POINT = StatsPoint(
    at=_AT, succeeded=12, failed=1, frames=96, input_tokens=19_344, output_tokens=156
)
_TOTALS = StatsTotals(**_POINT.model_dump(include=set(StatsTotals.model_fields)))
_MODEL = ModelStats(
    model=MODEL, waiting=3, running=2, oldest_s=0.8, workers=1, slots=16, jobs_per_minute=2.6, tokens_s=0.52,
    totals=_TOTALS, failures={"source_not_found": 1},
    stages={"generating": StageSeconds(jobs=12, sum_s=17.5, mean_s=1.46, p50_s=1.38, p90_s=2.11, p99_s=2.5)},
    series=(_POINT,),
)  # fmt: skip
STATS: dict[str, Any] = Stats(
    span="hour", at=_AT + timedelta(seconds=20), since=_AT - timedelta(minutes=59), step_s=60,
    attention=(
        Attention(
            severity="warning", code="worker_silent", about="worker", model=MODEL, worker="gpu-1:1200",
            message="worker gpu-1:1200 has not been heard for 41 s; at 60 s it counts as gone, and its jobs run "
            "elsewhere",
        ),
    ),
    all=_MODEL.model_copy(update={"model": None}), models=(_MODEL,),
).model_dump(mode="json")  # fmt: skip
TIMELINE: dict[str, Any] = JobTimeline(
    job=_DONE, at=_AT + timedelta(seconds=20),
    attempts=(
        Attempt(
            number=1, outcome="succeeded", worker="gpu-1:1200", queued_at=_AT, started_at=_AT + timedelta(seconds=1),
            ended_at=_AT + timedelta(seconds=4), queued_s=1.0, running_s=3.0,
            stages={"fetching": 0.8, "sampling": 0.6, "generating": 1.5, "storing": 0.1},
        ),
    ),
).model_dump(mode="json")  # fmt: skip

ESTIMATE: dict[str, Any] = {
    "valid": True,
    "estimated": True,
    "reason": None,
    "inputs": [
        {
            "kind": "video",
            "url": _URL,
            "duration_s": 30.0,
            "frames": 8,
            "bytes": 1_310_720,
            "width": 1280,
            "height": 720,
            "error": None,
        }
    ],
    "frames": 8,
    "prompt_tokens": 1612,
    "bytes": 1_310_720,
}

_BULK = BulkAction(
    id=EXAMPLE_BULK, action="retry", filter=JobFilter(code="worker_lost", ended_since=_AT - timedelta(hours=1)),
    cut_off=_AT, status="running", expected=420, changed=200, looked_at=201, refused=1,
    refusals=(BulkRefusal(job_id=EXAMPLE_JOB, reason="record_unreadable"),), who=EXAMPLE_KEY,
    created_at=_AT, updated_at=_AT + timedelta(seconds=1),
)  # fmt: skip
BULK_ASKED: dict[str, Any] = {
    "action": "retry",
    "filter": {"code": "worker_lost", "ended_since": "2026-11-30T08:30:00Z"},
    "cut_off": "2026-11-30T09:30:00Z",
}
BULK_ACTION: dict[str, Any] = _BULK.model_dump(mode="json")
BULK_STOPPED: dict[str, Any] = _BULK.model_copy(
    update={"status": "stopped", "message": "stopped on request"}
).model_dump(mode="json")
BULK_PREVIEW: dict[str, Any] = BulkPreview(
    action="retry", filter=_BULK.filter, cut_off=_AT, count=JobCount(count=420, looked_at=421), examples=(),
).model_dump(mode="json") | {"examples": [CANCELED_JOB]}  # fmt: skip
DEAD_COUNT: dict[str, Any] = DeadCount(
    code="worker_lost", hour=2, day=5, week=5, all=7
).model_dump()
DEAD_GROUPS: dict[str, Any] = DeadGroups(
    code="worker_lost",
    groups=(
        DeadGroup(
            code="worker_lost",
            group="00000002",
            failure=Failure(
                code="worker_lost", message="worker gpu-1:1200 vanished", stage="generating",
                retryable=True, attempt=3,
            ),
            count=7,
            job_ids=(EXAMPLE_JOB,),
            first_at=_AT - timedelta(days=3),
            last_at=_AT,
        ),
    ),
    looked_at=7,
    has_more=False,
).model_dump(mode="json")  # fmt: skip
_RUN = ArchiveRun(
    id=EXAMPLE_RUN, kind="caption", name="s3://videos/parade/", output="s3://results/parade", tenant="acme",
    who=f"web app ({EXAMPLE_KEY})", host="archive-1", total=1200, done=410, failed=2, skipped=300, in_flight=16,
    rate=1.6, first_at=_AT - timedelta(hours=1), started_at=_AT - timedelta(minutes=5), seen_at=_AT, starts=2,
    failures=(
        RunFailures(
            code="source_not_found", count=2,
            examples=(
                FailedRow(row="2019/float.mp4", message="no such object", job_id=EXAMPLE_JOB),
                FailedRow(row="2019/band.mp4", message="no such object"),
            ),
        ),
    ),
)  # fmt: skip
RUN: dict[str, Any] = _RUN.model_dump(mode="json")
RUN_LISTED: dict[str, Any] = _RUN.model_copy(
    update={"failures": (RunFailures(code="source_not_found", count=2),)}
).model_dump(mode="json")
RUN_ANNOUNCED: dict[str, Any] = {
    name: RUN[name]
    for name in (
        "id", "kind", "name", "output", "host", "state", "total", "done", "failed", "skipped", "in_flight", "rate",
        "failures",
    )
} | {"begins": True}  # fmt: skip
PREVIEWED: dict[str, Any] = {
    "inputs": [{"kind": "video", "url": _URL, "start": 0, "end": 30}],
    "sampling": {"method": "uniform", "frames": 2},
}
"""The body of a preview."""
PREVIEW: dict[str, Any] = ESTIMATE | {
    "inputs": [ESTIMATE["inputs"][0] | {"frames": 2}],
    "frames": 2,
    "prompt_tokens": None,
    "shown": [
        {"input": 0, "index": 0, "pts_s": 0.0, "asked_s": 0.0, "exact": True},
        {"input": 0, "index": 450, "pts_s": 15.0, "asked_s": 15.0, "exact": True},
    ],
    "taken": 2,
    "complete": True,
    "warnings": [],
    "sheet": {"columns": 2, "tile_width": 320, "tile_height": 180, "frames": [0, 1]},
    "jpeg": "/9j/4AAQSkZJRgABAQAAAQABAAD/2w==",
}

DELIVERY: dict[str, Any] = LinkedDelivery.make(
    Delivery(
        id=EXAMPLE_DELIVERY, job_id=EXAMPLE_JOB, tenant="acme", event="job.succeeded",
        url="https://app.example.org/hooks/videoqa", status="pending", created_at=_AT + timedelta(seconds=4),
        next_at=_AT + timedelta(seconds=9), attempts=1,
        log=(DeliveryAttempt(at=_AT + timedelta(seconds=4), status=503, ms=42, error="HTTP 503"),),
    )
).model_dump(mode="json")  # fmt: skip
KEY_ASKED: dict[str, Any] = {
    "name": "web app",
    "roles": ["submit", "read"],
    "tenant": "acme",
    "inputs": ["https://videos.example.org/"],
    "rate": "10/s",
    "jobs_per_day": 1000,
    "open_jobs": 50,
}
KEY: dict[str, Any] = ApiKey(
    **KEY_ASKED, id=EXAMPLE_KEY, created_at=datetime(2026, 11, 30, 9, 30, tzinfo=UTC)
).model_dump(mode="json")
MADE_KEY: dict[str, Any] = KEY | {"text": f"vqa_{EXAMPLE_KEY}_..."}
AUDIT: dict[str, Any] = {
    "at": "2026-11-30T09:30:00Z",
    "who": EXAMPLE_KEY,
    "what": "POST /v1/jobs/{job_id}/cancel",
    "on": EXAMPLE_JOB,
    "request_id": "req_4f2a0c9be1d2",
    "detail": "operator",
}

SECRET: dict[str, Any] = {
    "secret": "whsec_" + "b3VyIGV4YW1wbGUncyBzZWNyZXQsIDMyIGJ5dGVzISE=",
    "previous": None,
    "previous_until": None,
}

USAGE: dict[str, Any] = {
    "from": "2026-11-29",
    "to": "2026-11-30",
    "by": "day",
    "usage": [
        UsageRow(
            name="2026-11-30", succeeded=40, failed=2, answers=40, frames=320, input_tokens=64_480,
            output_tokens=1_912, bytes_fetched=52_428_800, video_s=1_200.0, processing_s=96.4,
        ).model_dump(mode="json")
    ],
}  # fmt: skip

_CREATED = int(_AT.timestamp())
FILE_SENT: dict[str, Any] = {"file": "@clip.mp4", "purpose": "user_data"}
"""A form; `@` stands before the name of a file, as for curl."""
FILE: dict[str, Any] = {
    "id": EXAMPLE_FILE,
    "object": "file",
    "bytes": 4_812_066,
    "created_at": _CREATED,
    "expires_at": _CREATED + 2_592_000,
    "filename": "parade.mp4",
    "purpose": "user_data",
    "status": "processed",
    "status_details": None,
}
FILES: dict[str, Any] = {
    "object": "list",
    "data": [FILE],
    "first_id": EXAMPLE_FILE,
    "last_id": EXAMPLE_FILE,
    "has_more": False,
}
FILE_DELETED: dict[str, Any] = {"id": EXAMPLE_FILE, "object": "file", "deleted": True}
BATCH_ASKED: dict[str, Any] = {
    "input_file_id": EXAMPLE_FILE,
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h",
    "metadata": {"day": "2026-11-30"},
}
BATCH: dict[str, Any] = {
    "id": EXAMPLE_BATCH,
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "model": MODEL,
    "errors": None,
    "input_file_id": EXAMPLE_FILE,
    "completion_window": "24h",
    "status": "in_progress",
    "output_file_id": None,
    "error_file_id": None,
    "created_at": _CREATED,
    "in_progress_at": _CREATED + 2,
    "expires_at": _CREATED + 86_400,
    "finalizing_at": None,
    "completed_at": None,
    "failed_at": None,
    "expired_at": None,
    "cancelling_at": None,
    "cancelled_at": None,
    "request_counts": {"total": 300, "completed": 120, "failed": 1},
    "usage": {
        "input_tokens": 240_000,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 7_210,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 247_210,
    },
    "metadata": {"day": "2026-11-30"},
}
BATCH_CANCELLING: dict[str, Any] = BATCH | {
    "status": "cancelling",
    "cancelling_at": _CREATED + 60,
}
BATCHES: dict[str, Any] = {
    "object": "list",
    "data": [BATCH],
    "first_id": EXAMPLE_BATCH,
    "last_id": EXAMPLE_BATCH,
    "has_more": False,
}
UPLOAD_ASKED: dict[str, Any] = {
    "bytes": 200_000_000,
    "filename": "parade.mp4",
    "mime_type": "video/mp4",
    "purpose": "user_data",
}
UPLOAD_PART: dict[str, Any] = {
    "id": "part_0VcSQdtK2JbTQ4vJkSqkXz1b",
    "object": "upload.part",
    "created_at": _CREATED,
    "upload_id": EXAMPLE_UPLOAD,
    "bytes": 67_108_864,
}
UPLOAD: dict[str, Any] = {
    "id": EXAMPLE_UPLOAD,
    "object": "upload",
    "bytes": 200_000_000,
    "created_at": _CREATED,
    "expires_at": _CREATED + 3600,
    "filename": "parade.mp4",
    "purpose": "user_data",
    "status": "pending",
    "file": None,
    "parts": [UPLOAD_PART],
}
UPLOAD_END: dict[str, Any] = {"part_ids": [UPLOAD_PART["id"]]}
UPLOADED = UPLOAD | {"status": "completed", "file": FILE | {"bytes": 200_000_000}}
UPLOAD_CANCELLED = UPLOAD | {"status": "cancelled", "parts": []}
MODELS: dict[str, Any] = {
    "object": "list",
    "data": [{"id": MODEL, "object": "model", "created": _CREATED, "owned_by": "videoqa"}],
}
CHAT_ASKED: dict[str, Any] = {
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "video_url", "video_url": {"url": _URL}},
                {"type": "text", "text": _QUESTION},
            ],
        }
    ],
    "max_tokens": 100,
}
CHAT_ANSWER: dict[str, Any] = {
    "id": f"chatcmpl-{EXAMPLE_JOB}",
    "object": "chat.completion",
    "created": _CREATED,
    "model": MODEL,
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": _TEXT, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 1612, "completion_tokens": 13, "total_tokens": 1625},
}
CHAT_CHUNKS = (
    f'data: {{"id": "chatcmpl-{EXAMPLE_JOB}", "object": "chat.completion.chunk", "created": {_CREATED}, "model": '
    '"default", "choices": [{"index": 0, "logprobs": null, "delta": {"role": "assistant", "content": "A brass"}, '
    '"finish_reason": null}]}\n\n'
    f'data: {{"id": "chatcmpl-{EXAMPLE_JOB}", "object": "chat.completion.chunk", "created": {_CREATED}, "model": '
    '"default", "choices": [{"index": 0, "logprobs": null, "delta": {}, "finish_reason": "stop"}]}\n\n'
    "data: [DONE]\n\n"
)
