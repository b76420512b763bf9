"""Job, Result, Failure, Event: what a backend app hears of its request.

Together with `request.py` this is the contract: everything that crosses a process.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime, Field

from videoqa.contract.request import (
    IMAGE_MARK,
    OUTPUT_FIELDS,
    VIDEO_MARK,
    Generation,
    Image,
    Input,
    JobRequest,
    Model,
    Question,
    Sampling,
    Video,
    parse_request,
    redact_url,
)
from videoqa.errors import Stage

__all__ = [
    "FINAL_STATES",
    "IMAGE_MARK",
    "OUTPUT_FIELDS",
    "VIDEO_MARK",
    "Answer",
    "EngineInfo",
    "Event",
    "EventType",
    "Failure",
    "FinishReason",
    "FrameUsed",
    "Generation",
    "Image",
    "Input",
    "Job",
    "JobPage",
    "JobRequest",
    "JobState",
    "Question",
    "QueueInfo",
    "Result",
    "Sampling",
    "Segment",
    "SourceInfo",
    "Usage",
    "Video",
    "Warn",
    "WorkerInfo",
    "parse_request",
    "redact_url",
]

JobState = Literal["queued", "running", "canceling", "succeeded", "failed", "canceled", "expired"]
FINAL_STATES: frozenset[JobState] = frozenset({"succeeded", "failed", "canceled", "expired"})
FinishReason = Literal["stop", "length", "stop_string"]
"""stop: the model ended its answer; length: `max_new_tokens`; stop_string: one of `stop`."""


class Failure(Model):
    """Why a job, or one of its attempts, did not succeed."""

    code: str
    message: str
    stage: Stage | None = None
    retryable: bool = False
    attempt: int = Field(ge=0)
    param: str | None = None


class Warn(Model):
    """Something the reader of an answer should know: fewer frames than asked, say."""

    code: str
    message: str
    param: str | None = None


class Job(Model):
    """A job as its record in Redis says it is now."""

    id: str
    state: JobState
    stage: Stage | None = None
    """Where a running job is."""
    attempt: int = 0
    max_attempts: int = 3
    created_at: AwareDatetime
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    next_attempt_at: AwareDatetime | None = None
    """When a failed attempt will be tried again."""
    position: int | None = None
    """Jobs that will begin before this one, if no other tenant comes."""
    waiting_for: str | None = None
    """Why a queued job waits."""
    model: str | None = None
    priority: Literal["interactive", "bulk"] = "interactive"
    tenant: str | None = None
    worker: str | None = None
    failure: Failure | None = None
    """Of a failed job; of a queued or running one: what ended its last attempt."""
    result_url: str | None = None
    custom_id: str | None = None
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = Field(default_factory=dict)

    @property
    def final(self) -> bool:
        return self.state in FINAL_STATES


class JobPage(Model):
    """Some of the jobs that were asked for, newest first."""

    jobs: tuple[Job, ...]
    next_cursor: str | None = None
    """Continues behind the last job; None: there are no more."""


class Answer(Model):
    """The answer to one question."""

    question_id: str
    question: str
    text: str
    finish_reason: FinishReason
    input_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)
    first_token_s: float | None = None
    """Seconds from when the model's queue got the question to the answer's first token."""


class FrameUsed(Model):
    """A picture that the model saw."""

    input: int = Field(ge=0)
    """Which of the request's inputs."""
    index: int | None = Field(default=None, ge=0)
    """The frame's number in the video from 0, where it can be known."""
    pts_s: float
    """Seconds from the beginning of the video."""
    asked_s: float | None = None
    """The instant that it was taken for."""
    exact: bool = True
    """It was on screen at `asked_s`. False: a keyframe was taken instead, the picture is damaged,
    or the container's timestamps could not be trusted."""


class Segment(Model):
    """What was answered about one segment of a video."""

    number: int = Field(ge=0)
    start: float
    """Seconds from the beginning of the video."""
    end: float
    answers: tuple[Answer, ...]
    """One for each question, in order."""
    frames: tuple[FrameUsed, ...]

    @property
    def text(self) -> str:
        """All answers, a line each."""
        return "\n".join(answer.text.strip() for answer in self.answers)


class SourceInfo(Model):
    """Which bytes an input was, and what they hold."""

    url: str
    """Without credentials and query."""
    kind: Literal["video", "image"]
    size_bytes: int = Field(ge=0)
    etag: str | None = None
    version_id: str | None = None
    start: float | None = None
    """Of the clip, as requested."""
    end: float | None = None
    duration_s: float | None = None
    fps: float | None = None
    width: int = Field(ge=0)
    height: int = Field(ge=0)
    codec: str | None = None
    format: str | None = None


class Usage(Model):
    """What the job cost. Seconds are wall time of the attempt that succeeded."""

    input_tokens: int = 0
    output_tokens: int = 0
    frames: int = 0
    bytes_fetched: int = 0
    queued_s: float = 0.0
    fetching_s: float = 0.0
    sampling_s: float = 0.0
    generating_s: float = 0.0
    storing_s: float = 0.0


class Result(Model):
    """The answers of a job and everything they were made from."""

    job_id: str
    answers: tuple[Answer, ...]
    """One for each question, in order; of a job in segments: the summary, if one was asked for."""
    frames: tuple[FrameUsed, ...]
    """Empty for a job in segments: each has its own."""
    segments: tuple[Segment, ...] = ()
    """In the order of time, of a job with the sampling `segment`."""
    sources: tuple[SourceInfo, ...]
    model: str
    model_revision: str | None = None
    sampling: Sampling
    generation: Generation
    usage: Usage
    warnings: tuple[Warn, ...] = ()
    attempt: int = Field(ge=1)
    created_at: AwareDatetime
    finished_at: AwareDatetime
    custom_id: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    cached: bool = False
    """The answers are those of an earlier job that asked the same; `usage` has no tokens."""
    cache_key: str | None = None
    """Under which the answers are found by later jobs: a digest of all that decides them."""


EventType = Literal["state", "stage", "progress", "retry", "text"]


class Event(Model):
    """Something that happened to a job; `id` orders events and resumes a stream."""

    id: str
    type: EventType
    state: JobState
    stage: Stage | None = None
    attempt: int = 0
    at: AwareDatetime
    message: str | None = None
    done: int | None = None
    """Of `total` steps of the stage."""
    total: int | None = None
    question_id: str | None = None
    """Whose answer `text` belongs to."""
    text: str | None = None
    """The next piece of an answer, for jobs with `stream`. All of one attempt joined, without space
    around it, are the answer; a later attempt begins again."""
    start: float | None = None
    """Of a job in segments: where the segment begins that `text` answers, in seconds from the video's
    beginning. Such answers come whole, and once."""


class EngineInfo(Model):
    """What a worker's engine has done since its start."""

    running: int = Field(ge=0)
    """Rows that are generated now."""
    steps: int = Field(ge=0)
    """Decode steps of all running rows together."""
    rows: int = Field(ge=0)
    """Of all steps; `rows / steps` is how full they were."""
    prompt_tokens: int = Field(ge=0)
    """That were computed, not taken from what was kept."""
    shared: int = Field(ge=0)
    """Questions that shared the row of an equal one."""
    feature_hits: int = Field(ge=0)
    """Times that features of pictures were taken from what was kept."""
    feature_misses: int = Field(ge=0)
    prefix_hits: int = Field(ge=0)
    """The same for prompts up to their last picture, from what was kept or from a row that runs."""
    prefix_misses: int = Field(ge=0)
    kept_bytes: int = Field(ge=0)
    """Of both."""


class WorkerInfo(Model):
    """A worker that announced itself within the last minute."""

    id: str
    model: str
    model_revision: str | None = None
    queues: tuple[str, ...]
    slots: int
    running: int
    ready: bool
    engine: EngineInfo | None = None
    """None while the model loads, and where a server has it."""
    started_at: AwareDatetime
    seen_at: AwareDatetime


class QueueInfo(Model):
    """The jobs of one model and priority that wait."""

    model: str | None = None
    """None: jobs that name no model."""
    priority: Literal["interactive", "bulk"]
    waiting: int = Field(ge=0)
    tenants: int = Field(ge=0)
    """Who have jobs in it."""
    paused: bool
    workers: int = Field(ge=0)
    """That serve it and are ready."""


def utc(timestamp_s: float) -> datetime:
    """A UNIX time as an aware datetime."""
    return datetime.fromtimestamp(timestamp_s, UTC)
