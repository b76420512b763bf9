"""Every error of videoqa, one class for each code.

A class has a docstring (the meaning of the error), a `code` that never changes, the `stage` of the
job in which it arises, and `retryable`: True if another try may help. A message says what was got,
what was expected, and the next step.

    VideoQAError
    ├── QueueFull, SubmittedInPart, OperatorOnly
    ├── RequestError            the request itself is wrong; nothing was submitted
    │   ├── InvalidRequest, EmptyQuestion, NoMedia, MarkMismatch
    │   └── IdempotencyConflict, ManifestRefused
    ├── LookupFailed            about a job id
    │   └── JobNotFound, JobExpired, RecordUnreadable, JobNotFinished, JobFailed, NotRetryable
    ├── ServiceError            about the system around the job
    │   └── RedisUnavailable (NotReplicated), WaitTimeout, ConfigurationError, ClientClosed
    └── JobError                ends an attempt; becomes the job's Failure
        ├── SourceError         stage "fetching"
        ├── SamplingError       stage "sampling"
        │   └── ..., VideoTooLarge (PictureTooLarge, VideoTooLong, TooMany..., FramesTooLarge)
        ├── GenerationError     stage "generating"
        ├── OutputError         stage "storing"
        └── LifecycleError      the job's own clock, cancel, or worker
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Protocol, get_args

__all__ = [
    "REGISTRY",
    "AddressForbidden",
    "BucketNotFound",
    "ChecksumMismatch",
    "ClientClosed",
    "ClipOutOfRange",
    "ConfigurationError",
    "DecodeTimeout",
    "DecoderCrashed",
    "DecoderOutOfMemory",
    "DecodingFailed",
    "EmptyQuestion",
    "EngineStopped",
    "FailureOfJob",
    "FramesTooLarge",
    "GenerationError",
    "IdempotencyConflict",
    "InputChanged",
    "InternalError",
    "InvalidRequest",
    "JobCanceled",
    "JobError",
    "JobExpired",
    "JobFailed",
    "JobNotFinished",
    "JobNotFound",
    "JobTimeout",
    "LeaseLost",
    "LifecycleError",
    "LookupFailed",
    "ManifestRefused",
    "MarkMismatch",
    "ModelError",
    "ModelServerError",
    "ModelServerUnavailable",
    "NoMedia",
    "NoVideoStream",
    "NotAVideo",
    "NotReplicated",
    "NotRetryable",
    "OperatorOnly",
    "OutOfMemory",
    "OutputConflict",
    "OutputDenied",
    "OutputError",
    "OutputNotFound",
    "OutputUnavailable",
    "PictureTooLarge",
    "PromptTooLong",
    "QueueFull",
    "RecordUnreadable",
    "RedisUnavailable",
    "RequestError",
    "SamplingError",
    "ServiceError",
    "SourceDenied",
    "SourceEmpty",
    "SourceError",
    "SourceHttpError",
    "SourceNotFound",
    "SourceTimeout",
    "SourceTooLarge",
    "SourceUnavailable",
    "SourceUnreachable",
    "SpoolFull",
    "Stage",
    "StartByPassed",
    "SubmittedInPart",
    "TooManyPackets",
    "TooManySegments",
    "TooManyStreams",
    "UnsupportedInput",
    "VideoCorrupt",
    "VideoQAError",
    "VideoTooLarge",
    "VideoTooLong",
    "VideoTruncated",
    "WaitTimeout",
    "WorkerLost",
    "WorkerStopping",
]

Stage = Literal["submitting", "queued", "fetching", "sampling", "generating", "storing"]
STAGES: tuple[Stage, ...] = get_args(Stage)

MAX_MESSAGE = 10_000
"""Characters of an error's message; what was found may be a server's, and of any length."""


class VideoQAError(Exception):
    """Base class of all errors that videoqa raises on purpose."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    stage: ClassVar[Stage | None] = None

    def __init__(self, message: str, *, param: str | None = None) -> None:
        if len(message) > MAX_MESSAGE:
            message = message[:MAX_MESSAGE] + "..."
        super().__init__(message)
        self.message = message
        self.param = param
        """Path of the request's field that is at fault: `inputs.0.url`."""

    def __str__(self) -> str:
        return self.message


class RequestError(VideoQAError):
    """The request is wrong; nothing was submitted."""

    code = "invalid_request"
    stage = "submitting"


class InvalidRequest(RequestError):
    """A field of the request is unknown, missing, of the wrong type, or outside of its limits."""

    code = "invalid_request"


class EmptyQuestion(RequestError):
    """A question has no text."""

    code = "empty_question"


class NoMedia(RequestError):
    """The request names no video and no image."""

    code = "no_media"


class MarkMismatch(RequestError):
    """A question's `<video>` or `<image>` marks do not match the inputs."""

    code = "mark_mismatch"


class QueueFull(VideoQAError):
    """The queue of this model and priority holds `max_queued` jobs; nothing was recorded."""

    code = "queue_full"
    retryable = True
    stage = "submitting"


class SubmittedInPart(VideoQAError):
    """Some requests of `submit_many` were recorded, and others were not."""

    code = "submitted_in_part"
    stage = "submitting"

    def __init__(self, job_ids: Sequence[str | None], refused: Mapping[int, VideoQAError]) -> None:
        """Makes the message from the outcome of each request.

        Arguments:
            job_ids: ids of the jobs that were recorded, in the order of the requests; None for a
                refused request. Requests after the last one were not submitted.
            refused: the errors of the refused requests, by the request's number.
        """
        number, error = next(iter(refused.items()))
        recorded = sum(job_id is not None for job_id in job_ids)
        super().__init__(
            f"{recorded} jobs were recorded, {len(refused)} refused, and the rest was not submitted; "
            f"request {number}: {error.message} ({error.code}). `job_ids` has the recorded ones; with "
            "idempotency keys all requests can be submitted again"
        )
        self.job_ids = list(job_ids)
        self.refused = dict(refused)


class IdempotencyConflict(RequestError):
    """The idempotency key was used before with another request."""

    code = "idempotency_conflict"


class ManifestRefused(RequestError):
    """A manifest has wrong or duplicate lines; none of its rows was started."""

    code = "manifest_refused"


class LookupFailed(VideoQAError):
    """A job, or the result of one, is not available under this job id."""

    code = "lookup_failed"


class JobNotFound(LookupFailed):
    """No job with this id was ever recorded here, or its record ended more than a week ago."""

    code = "job_not_found"


class JobExpired(LookupFailed):
    """The job existed, but its record is gone: its `result_ttl_s` is over, or it was purged."""

    code = "job_expired"


class RecordUnreadable(LookupFailed):
    """The job's record is none that this release reads: a newer one, or another program, wrote it."""

    code = "record_unreadable"


class JobNotFinished(LookupFailed):
    """The job has no result yet."""

    code = "job_not_finished"
    retryable = True


class FailureOfJob(Protocol):
    """The attributes of `contract.Failure`: the reason why a job ended without a result."""

    @property
    def code(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def stage(self) -> Stage | None: ...
    @property
    def retryable(self) -> bool: ...
    @property
    def attempt(self) -> int: ...
    @property
    def param(self) -> str | None: ...


class JobFailed(LookupFailed):
    """The job ended without a result: it failed, was canceled, or expired."""

    code = "job_failed"

    def __init__(
        self, message: str, *, failure: FailureOfJob | None = None, param: str | None = None
    ) -> None:
        super().__init__(message, param=param)
        self.failure = failure
        """The job's `Failure`, with the code of what went wrong; None: the record has none."""


class NotRetryable(LookupFailed):
    """The job is in no state for it: failed, canceled and expired jobs can be retried, failed ones purged."""

    code = "not_retryable"


class OperatorOnly(VideoQAError):
    """The client is one tenant's, and the call would reach all tenants or another one."""

    code = "operator_only"


class ServiceError(VideoQAError):
    """The system around the job does not work."""

    code = "service_error"


class RedisUnavailable(ServiceError):
    """Redis does not answer."""

    code = "redis_unavailable"
    retryable = True


class NotReplicated(RedisUnavailable):
    """Redis has recorded it, but too few replicas have acknowledged it in time; repeat the call."""

    code = "not_replicated"


class WaitTimeout(ServiceError):
    """The caller's waiting time is over; the job goes on."""

    code = "wait_timeout"
    retryable = True


class ConfigurationError(ServiceError):
    """A setting has a wrong value, or does not fit the others."""

    code = "configuration_error"


class ClientClosed(ServiceError):
    """A client was used after `close`, or closed while a call was waiting."""

    code = "client_closed"

    def __init__(
        self, message: str = "this client is closed; make a new one", *, param: str | None = None
    ) -> None:
        super().__init__(message, param=param)


class JobError(VideoQAError):
    """An attempt of a job ended without a result."""

    code = "job_error"


class SourceError(JobError):
    """An input could not be fetched."""

    code = "source_error"
    stage = "fetching"


class SourceNotFound(SourceError):
    """The file, the HTTP resource (404, 410) or the S3 key does not exist."""

    code = "source_not_found"


class BucketNotFound(SourceError):
    """The S3 bucket does not exist."""

    code = "bucket_not_found"


class SourceDenied(SourceError):
    """Reading the source is forbidden: HTTP 401 or 403, S3 AccessDenied, file permissions or roots."""

    code = "source_denied"


class AddressForbidden(SourceError):
    """The URL leads to an address that workers may not fetch from."""

    code = "address_forbidden"


class SourceTimeout(SourceError):
    """The source did not deliver in time."""

    code = "source_timeout"
    retryable = True


class SourceUnreachable(SourceError):
    """The source cannot be connected to: refused, reset, or its name does not resolve."""

    code = "source_unreachable"
    retryable = True


class SourceUnavailable(SourceError):
    """The source cannot serve the request right now: HTTP 408, 425, 429 or 5xx, S3 SlowDown."""

    code = "source_unavailable"
    retryable = True


class SourceHttpError(SourceError):
    """The source refused the request for another reason, or its certificate is not valid."""

    code = "source_http_error"


class SourceEmpty(SourceError):
    """The source has no bytes."""

    code = "source_empty"


class SourceTooLarge(SourceError):
    """The source needs more bytes than the worker's `max_source_bytes`."""

    code = "source_too_large"


class InputChanged(SourceError):
    """The source changed while it was read."""

    code = "input_changed"


class ChecksumMismatch(SourceError):
    """The fetched bytes had, twice, another checksum than their store states."""

    code = "checksum_mismatch"
    retryable = True


class SpoolFull(SourceError):
    """The worker's disk has no space left for the input."""

    code = "spool_full"
    retryable = True


class SamplingError(JobError):
    """No frames could be sampled from an input."""

    code = "sampling_error"
    stage = "sampling"


class NotAVideo(SamplingError):
    """The input is not a video or image of an allowed format, but a web page, for example."""

    code = "not_a_video"


class NoVideoStream(SamplingError):
    """The file has no video stream, only audio."""

    code = "no_video_stream"


class VideoCorrupt(SamplingError):
    """The file is a video, but none of its frames can be decoded."""

    code = "video_corrupt"


class VideoTruncated(SamplingError):
    """The file ends before the frames that its header lists."""

    code = "video_truncated"


class VideoTooLarge(SamplingError):
    """The video exceeds one of the worker's limits; each subclass is one limit."""

    code = "video_too_large"


class PictureTooLarge(VideoTooLarge):
    """The video's frames have more pixels than the worker's `max_pixels`."""

    code = "picture_too_large"


class VideoTooLong(VideoTooLarge):
    """The video lasts longer than the worker's `max_duration_s`."""

    code = "video_too_long"


class TooManyStreams(VideoTooLarge):
    """The file has more streams than the worker's `max_streams`."""

    code = "too_many_streams"


class TooManyPackets(VideoTooLarge):
    """Sampling would read more packets than the worker's `max_packets`."""

    code = "too_many_packets"


class TooManySegments(VideoTooLarge):
    """The video would be cut into more segments than the worker's `max_segments`."""

    code = "too_many_segments"


class FramesTooLarge(VideoTooLarge):
    """The frames asked for take more memory than the worker's `max_frames_bytes`."""

    code = "frames_too_large"


class ClipOutOfRange(SamplingError):
    """The clip lies outside of the video."""

    code = "clip_out_of_range"


class DecodeTimeout(SamplingError):
    """Decoding took longer than the worker's limit."""

    code = "decode_timeout"


class DecodingFailed(SamplingError):
    """A library that decodes failed on the input in a way that videoqa does not foresee."""

    code = "decoding_failed"


class DecoderOutOfMemory(SamplingError):
    """Decoding needed more memory than the worker's `decoder_memory_bytes`."""

    code = "decoder_out_of_memory"


class DecoderCrashed(SamplingError):
    """The process that decoded the video died; the worker goes on."""

    code = "decoder_crashed"
    retryable = True


class GenerationError(JobError):
    """The model produced no answer."""

    code = "generation_error"
    stage = "generating"


class PromptTooLong(GenerationError):
    """Frames and question together exceed the model's context."""

    code = "prompt_too_long"


class UnsupportedInput(GenerationError):
    """The model does not support this kind of input."""

    code = "unsupported_input"


class ModelError(GenerationError):
    """The model raised an error during generation."""

    code = "model_error"
    retryable = True


class OutOfMemory(GenerationError):
    """The device has not enough memory for this job, even alone in its batch."""

    code = "out_of_memory"
    retryable = True


class EngineStopped(GenerationError):
    """The engine stopped before the answer was complete."""

    code = "engine_stopped"
    retryable = True
    had_begun = True
    """False: the question was still waiting, so it cannot be to blame; the attempt is not counted."""


class ModelServerUnavailable(GenerationError):
    """The model server does not answer, is overloaded, or broke the answer off."""

    code = "model_server_unavailable"
    retryable = True


class ModelServerError(GenerationError):
    """The model server refused the question."""

    code = "model_server_error"


class OutputError(JobError):
    """The result could not be written to object storage."""

    code = "output_error"
    stage = "storing"


class OutputDenied(OutputError):
    """The worker may not write to the output's URL."""

    code = "output_denied"


class OutputNotFound(OutputError):
    """The output's bucket or folder does not exist."""

    code = "output_not_found"


class OutputConflict(OutputError):
    """Another job's result, or a foreign file, lies where the result would be written; it stays."""

    code = "output_conflict"


class OutputUnavailable(OutputError):
    """Object storage does not answer, or is full."""

    code = "output_unavailable"
    retryable = True


class LifecycleError(JobError):
    """The job ran out of time, was canceled, or lost its worker."""

    code = "lifecycle_error"


class JobCanceled(LifecycleError):
    """The job was canceled on request."""

    code = "canceled"


class JobTimeout(LifecycleError):
    """The attempt ran longer than `timeout_s`."""

    code = "job_timeout"


class StartByPassed(LifecycleError):
    """No worker started the job before `start_by`."""

    code = "start_by_passed"
    stage = "queued"


class WorkerLost(LifecycleError):
    """The worker vanished in each of the job's attempts."""

    code = "worker_lost"
    retryable = True


class WorkerStopping(LifecycleError):
    """The worker shuts down, and gives the job back for another one to run."""

    code = "worker_stopping"
    retryable = True


class LeaseLost(LifecycleError):
    """The worker no longer holds the job's lease, which another one may hold now; its writes are refused."""

    code = "lease_lost"


class InternalError(JobError):
    """videoqa itself has a fault; the worker's log has the traceback."""

    code = "internal_error"
    retryable = True


def _collect_codes() -> dict[str, type[VideoQAError]]:
    found: dict[str, type[VideoQAError]] = {}
    pending: list[type[VideoQAError]] = [VideoQAError]
    while pending:
        cls = pending.pop()
        pending.extend(cls.__subclasses__())
        if not cls.__subclasses__():
            found[cls.code] = cls
    return dict(sorted(found.items()))


REGISTRY: dict[str, type[VideoQAError]] = _collect_codes()
"""Class of each code that can reach a user."""
