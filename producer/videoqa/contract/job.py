"""Job, Event, Result, Failure: the replies to a request; and the announcements of workers and queues."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, TypeVar

from pydantic import AwareDatetime, Field, JsonValue, TypeAdapter

from videoqa.contract.frame_sampling import Sampling
from videoqa.contract.model import Model
from videoqa.contract.request import GenerationInForce, JobRequest, Priority
from videoqa.errors import Stage

__all__ = [
    "FINAL_STATES",
    "Answer",
    "EngineInfo",
    "Event",
    "EventType",
    "Failure",
    "FinishReason",
    "FrameUsed",
    "Job",
    "JobPage",
    "JobState",
    "JobSummary",
    "QueueInfo",
    "Result",
    "Segment",
    "Sheet",
    "SourceInfo",
    "Usage",
    "Warn",
    "WorkerInfo",
    "WorkerState",
    "describe_refinement",
    "describe_state",
    "describe_summary",
    "to_datetime",
]

T = TypeVar("T")

JobState = Literal["queued", "running", "canceling", "succeeded", "failed", "canceled", "expired"]
FINAL_STATES: frozenset[JobState] = frozenset({"succeeded", "failed", "canceled", "expired"})
_PREDICATES = {
    "canceling": "is being canceled",
    "succeeded": "has succeeded",
    "failed": "has failed",
    "canceled": "was canceled",
    "expired": "has expired",
}
FinishReason = Literal["stop", "length", "stop_string"]
"""stop: the model ended its answer; length: `max_new_tokens`; stop_string: one of `stop`."""


class Failure(Model):
    """The reason why a job, or one of its attempts, did not succeed."""

    code: str
    message: str
    stage: Stage | None = None
    retryable: bool = False
    attempt: int = Field(ge=0)
    param: str | None = None


class Warn(Model):
    """A remark for the reader of an answer, such as that it had fewer frames than asked for."""

    code: str
    message: str
    param: str | None = None


class JobSummary(Model):
    """The beginning of a job's request, short enough for lists."""

    question: str
    """Beginning of the first question, 200 characters at most."""
    questions: int = Field(ge=1)
    """Number of questions."""
    input: str
    """Name of the first input: the last part of its path, or the id of an uploaded file."""
    inputs: int = Field(ge=1)
    """Number of inputs."""


class Job(Model):
    """The current state of a job, as its record in Redis has it."""

    id: str
    state: JobState
    stage: Stage | None = None
    """Stage of a running job."""
    attempt: int = 0
    max_attempts: int = 3
    created_at: AwareDatetime
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    """Time at which the record of a finished job ends; None: it is not finished."""
    next_attempt_at: AwareDatetime | None = None
    """Time at which the job, after a failed attempt, will be tried again."""
    position: int | None = None
    """Number of jobs that will begin before this one, if no other tenant submits."""
    waiting_for: str | None = None
    """Reason why a queued job waits."""
    model: str | None = None
    priority: Priority = "interactive"
    tenant: str | None = None
    worker: str | None = None
    failure: Failure | None = None
    """Reason why the job failed; for a queued or running one: why its last attempt did."""
    result_url: str | None = None
    custom_id: str | None = None
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = Field(default_factory=dict)
    summary: JobSummary | None = None
    """The beginning of its request; None: another program recorded it."""
    trace_id: str | None = None
    """Trace of the job, the caller's if it traces; log lines have it as well."""
    request: JobRequest | None = None
    """The request, with inputs, questions and sampling; its URLs have no credentials and no query.
    None: it was not asked for (`include_request`)."""

    @property
    def final(self) -> bool:
        """True if the job has ended, whichever way."""
        return self.state in FINAL_STATES


class JobPage(Model):
    """One page of a list of jobs, newest first."""

    jobs: tuple[Job, ...]
    unreadable: tuple[str, ...] = ()
    """Ids of jobs of this page whose records this release can't read; none if a state was asked for."""
    next_cursor: str | None = None
    """Cursor of the next page; None: there is none."""
    looked_at: int = Field(default=0, ge=0)
    """Number of jobs that were looked at for this page; with a `next_cursor` more may follow."""


class Answer(Model):
    """The answer to one question."""

    question_id: str
    question: str
    text: str
    finish_reason: FinishReason
    input_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)
    first_token_s: float | None = None
    """Seconds from the question's entry into the model's queue to the answer's first token."""
    value: JsonValue = None
    """Value of the text, if the question asks for a form: a choice, a number, or what JSON stands for. None:
    free text, or an answer that was cut off, of which a warning tells."""
    unrefined: str | None = None
    """The first answer, if the question has `refine`; the tokens are those of both."""

    def value_as(self, kind: type[T]) -> T:
        """Returns the value as this type, such as a pydantic model.

        Raises:
            pydantic.ValidationError: it is none of that type, as of an answer that was cut off.
        """
        return TypeAdapter(kind).validate_python(self.value)


class FrameUsed(Model):
    """A frame that the model saw."""

    input: int = Field(ge=0)
    """Index of its input in the request, from 0."""
    index: int | None = Field(default=None, ge=0)
    """Number of the frame in the video, from 0; None: it cannot be known."""
    pts_s: float
    """Timestamp of the frame, in seconds from the beginning of the video."""
    asked_s: float | None = None
    """Instant that the frame was taken for."""
    exact: bool = True
    """True if the frame was on screen at `asked_s`. False: a keyframe was taken instead, the frame is
    damaged, or the container's timestamps could not be trusted."""


class Segment(Model):
    """The answers about one segment of a video."""

    number: int = Field(ge=0)
    start: float
    """Start of the segment, in seconds from the beginning of the video."""
    end: float
    answers: tuple[Answer, ...]
    """One answer for each question, in order."""
    frames: tuple[FrameUsed, ...]

    @property
    def text(self) -> str:
        """All answers, one a line."""
        return "\n".join(answer.text.strip() for answer in self.answers)


DynamicRange = Literal["sdr", "hlg", "pq"]
"""Standard dynamic range, or one of the two kinds of HDR."""


class SourceInfo(Model):
    """The version of an input that was read, and its properties."""

    url: str
    """URL of the input, without credentials and query."""
    kind: Literal["video", "image"]
    size_bytes: int = Field(ge=0)
    etag: str | None = None
    version_id: str | None = None
    start: float | None = None
    """Start of the clip, as requested."""
    end: float | None = None
    duration_s: float | None = None
    start_offset_s: float | None = None
    """Time on a player's clock at which the first picture is shown, which is time 0 of all other fields."""
    fps: float | None = None
    width: int = Field(ge=0)
    height: int = Field(ge=0)
    codec: str | None = None
    format: str | None = None
    dynamic_range: DynamicRange | None = None
    """The dynamic range of the file, in which `hlg` and `pq` are HDR."""
    tone_mapped: bool | None = None
    """True if the pictures are HDR and the model saw them mapped to SDR, as a player shows them."""


class Sheet(Model):
    """Layout of a sheet: a JPEG with thumbnails of the frames that the model saw, in tiles of equal size, line by line.

    Tile `n` is in column `n % columns` and line `n // columns`, without space between tiles.
    """

    columns: int = Field(ge=1)
    tile_width: int = Field(ge=1)
    tile_height: int = Field(ge=1)
    frames: tuple[int, ...]
    """For each tile, the number of its frame, from 0: in `frames` of the result, or in those of all segments
    one after the other."""


class Usage(Model):
    """Resources that the job used; seconds are wall time of the attempt that succeeded."""

    input_tokens: int = 0
    output_tokens: int = 0
    frames: int = 0
    frames_shared: int = 0
    """Frames among them that another job of the same worker had decoded. `bytes_fetched` and `sampling_s` are what this
    job itself read and waited for."""
    bytes_fetched: int = 0
    queued_s: float = 0.0
    fetching_s: float = 0.0
    sampling_s: float = 0.0
    generating_s: float = 0.0
    storing_s: float = 0.0


class Result(Model):
    """The answers of a job, and all that they were made from."""

    job_id: str
    answers: tuple[Answer, ...]
    """One answer for each question, in order; for a job in segments: the summary, if it has one."""
    frames: tuple[FrameUsed, ...]
    """Frames that the model saw; empty for a job in segments, each of which has its own."""
    segments: tuple[Segment, ...] = ()
    """Segments in the order of time, for a job with the method `segment`."""
    sources: tuple[SourceInfo, ...]
    model: str
    model_revision: str | None = None
    sampling: Sampling
    generation: GenerationInForce
    usage: Usage
    warnings: tuple[Warn, ...] = ()
    attempt: int = Field(ge=1)
    created_at: AwareDatetime
    finished_at: AwareDatetime
    custom_id: str | None = None
    tenant: str | None = None
    """Tenant of the job: another tenant's job never replaces the object of this result."""
    metadata: dict[str, str] = Field(default_factory=dict)
    cached: bool = False
    """True if the answers come from an earlier, equal job; `usage` has no tokens then."""
    cache_key: str | None = None
    """Key of the answers in the cache: a digest of all that decides them."""
    sheet_url: str | None = None
    """URL of the sheet with thumbnails of the frames; None: none was kept."""
    sheet: Sheet | None = None
    """Layout of the sheet, by which each frame is found on it."""

    def value_as(self, kind: type[T], question_id: str | None = None) -> T:
        """Returns the value of an answer as this type, such as a pydantic model.

        Arguments:
            question_id: id of the question; None: the first one.

        Raises:
            KeyError: there is no answer to such a question; those about segments are in `segments`.
            pydantic.ValidationError: the value is none of that type, as of an answer that was cut off.
        """
        for answer in self.answers:
            if question_id in (None, answer.question_id):
                return answer.value_as(kind)
        raise KeyError(question_id)


EventType = Literal["state", "stage", "progress", "retry", "text"]


class Event(Model):
    """One step in the life of a job; `id` orders events and resumes a stream."""

    id: str
    type: EventType
    state: JobState
    stage: Stage | None = None
    attempt: int = 0
    at: AwareDatetime
    message: str | None = None
    done: int | None = None
    """Steps of the stage that are done, out of `total`."""
    total: int | None = None
    question_id: str | None = None
    """Id of the question that `text` answers."""
    text: str | None = None
    """The next piece of an answer, for jobs with `stream`. All pieces of one attempt joined, without
    space around them, are the answer; a later attempt begins again."""
    start: float | None = None
    """Start of the segment that `text` answers, in seconds from the video's beginning; None: the job has
    no segments. The answer about a segment comes whole, and once."""


class EngineInfo(Model):
    """Counters of a worker's engine since its start."""

    running: int = Field(ge=0)
    """Sequences that are generated now."""
    steps: int = Field(ge=0)
    """Decode steps; each advances all running sequences."""
    rows: int = Field(ge=0)
    """Sequences summed over all steps; `rows / steps` is the mean batch size."""
    prompt_tokens: int = Field(ge=0)
    """Prompt tokens that were computed, not taken from the prefix cache."""
    shared: int = Field(ge=0)
    """Questions that shared the sequence of an equal one."""
    feature_hits: int = Field(ge=0)
    """Times that the vision features of frames were taken from their cache."""
    feature_misses: int = Field(ge=0)
    prefix_hits: int = Field(ge=0)
    """Times that a prompt up to its last frame was taken from the prefix cache or a running sequence."""
    prefix_misses: int = Field(ge=0)
    kept_bytes: int = Field(ge=0)
    """Memory of both caches."""
    batch: float | None = None
    """Mean batch size of the decode steps between the worker's last two words; None: there were none."""
    max_batch: int | None = None
    """Most sequences that are decoded together."""
    kv_used: int | None = None
    """Positions of the KV cache that sequences take now."""
    kv_positions: int | None = None
    """Positions of the KV cache."""


WorkerState = Literal["loading", "ready", "draining", "broken"]


class WorkerInfo(Model):
    """The announcement of a worker that was heard within the last minute."""

    id: str
    model: str
    model_revision: str | None = None
    queues: tuple[str, ...]
    slots: int
    running: int
    ready: bool
    state: WorkerState = "loading"
    """loading: no model yet; ready: it takes jobs; draining: it ends its jobs, and then itself; broken: its engine
    has stopped, and it will end."""
    job_ids: tuple[str, ...] = ()
    """Ids of the jobs that it runs, at most 16 of them."""
    tokens_s: float | None = None
    """Tokens a second that were generated between its last two words; None: not measured yet."""
    engine: EngineInfo | None = None
    """Counters of the engine; None while the model loads, or if a model server runs it."""
    tenant_running: int | None = None
    """Most jobs of one tenant that run at once; None: any number."""
    messages_dropped: int = Field(default=0, ge=0)
    """Messages of the broker that were no bells, since the worker's start."""
    started_at: AwareDatetime
    seen_at: AwareDatetime
    heard_s: float | None = None
    """Seconds since its last word, on the clock of Redis."""
    host: str | None = None
    device: str | None = None
    """Device of the model, as `cuda:0`; `server`: a model server has it; None: the model still loads."""
    device_name: str | None = None
    """Name of the device, as `NVIDIA H200`; None: it is unknown."""
    device_used_bytes: int | None = None
    """Memory of the device that is in use, by this and other processes; None: unknown."""
    device_bytes: int | None = None
    """Memory of the device."""
    version: str | None = None
    """Release of videoqa-worker."""
    spool: str | None = None
    """Folder of its downloads."""
    max_source_bytes: int | None = None
    """Most bytes that it fetches of one input."""
    output: str | None = None
    """URL template of the results of jobs without output."""
    summarizes: bool = True
    """False: the model cannot summarize, as the demo model."""


class QueueInfo(Model):
    """The queue of one model and priority."""

    model: str | None = None
    """Model of the jobs; None: jobs that name none."""
    priority: Priority
    waiting: int = Field(ge=0)
    """Number of jobs that may begin now, or once their tenant has room."""
    running: int = Field(default=0, ge=0)
    """Number of claimed jobs; 0 in the sight of a tenant."""
    delayed: int = Field(default=0, ge=0)
    """Number of jobs between two attempts; 0 in the sight of a tenant."""
    due: int = Field(default=0, ge=0)
    """Number of delayed jobs whose delay is over; they wait, once a reaper has seen them."""
    due_s: float | None = None
    """Seconds since the delay of the first of these was over; None: there are none."""
    tenants: int = Field(ge=0)
    """Number of tenants with waiting jobs."""
    paused: bool
    workers: int = Field(ge=0)
    """Number of ready workers that serve the queue."""
    slots: int = Field(default=0, ge=0)
    """Number of jobs that these workers run at a time, of all their queues."""
    oldest_at: AwareDatetime | None = None
    """Submission of the job that waits longest; None: no job waits."""
    oldest_s: float | None = None
    """Seconds since this job came to stand in line, also after a failed attempt, on the clock of Redis."""
    start_by_s: float | None = None
    """Seconds until this job's `start_by`, by which it must begin; None: it began before, or no job waits."""
    paused_s: float | None = None
    """Seconds since the queue was paused; None: it is not."""
    served_s: float | None = None
    """Seconds since a worker that serves the queue was heard; None: none was within a day."""
    all_workers: int = Field(default=0, ge=0)
    """Number of workers that serve the queue, those included that are not ready."""


def describe_state(state: str) -> str:
    """Returns the predicate of a sentence about a job in this state: "has succeeded"."""
    return _PREDICATES.get(state, f"is {state}")


def describe_summary(model: str) -> Warn:
    """Returns the warning about a summary by a model that cannot summarize."""
    return Warn(
        code="summary_unsupported",
        message=f"the model {model} cannot summarize: its summary tells nothing about the video; ask "
        "another model for one",
        param="summary",
    )


def describe_refinement(model: str) -> Warn:
    """Returns the warning about `refine` by a model that makes nothing of a prompt without pictures."""
    return Warn(
        code="refine_unsupported",
        message=f"the model {model} cannot work on a text: its refined answers tell nothing, `unrefined` has the first "
        "ones; ask another model to refine",
        param="refine",
    )


def to_datetime(timestamp_s: float) -> datetime:
    """Converts a UNIX time into an aware datetime."""
    return datetime.fromtimestamp(timestamp_s, UTC)
