"""Every error of videoqa, one class a code.

A class is its docstring (what happened), a `code` that never changes, the `stage` of
the job in which it arises, and whether trying again may help (`retryable`). A message
says what came, what was expected and the next step.

    VideoQAError
    ├── QueueFull, SubmittedInPart
    ├── RequestError            the request itself is wrong; nothing was submitted
    │   ├── InvalidRequest, EmptyQuestion, NoMedia, MarkMismatch
    │   └── IdempotencyConflict, ManifestRefused
    ├── LookupFailed            about a job id
    │   └── JobNotFound, JobExpired, JobNotFinished, JobFailed, NotRetryable
    ├── ServiceError            about the system around the job
    │   └── RedisUnavailable, WaitTimeout, ConfigurationError
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
from typing import ClassVar, Literal, get_args

__all__ = [
    "REGISTRY",
    "AddressForbidden",
    "BucketNotFound",
    "ChecksumMismatch",
    "ClipOutOfRange",
    "ConfigurationError",
    "DecodeTimeout",
    "DecoderCrashed",
    "DecoderOutOfMemory",
    "EmptyQuestion",
    "EngineStopped",
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
    "NoMedia",
    "NoVideoStream",
    "NotAVideo",
    "NotRetryable",
    "OutOfMemory",
    "OutputDenied",
    "OutputError",
    "OutputNotFound",
    "OutputUnavailable",
    "PictureTooLarge",
    "PromptTooLong",
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


class VideoQAError(Exception):
    """Base of all errors that videoqa raises on purpose."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    stage: ClassVar[Stage | None] = None

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        """Which part of the request is at fault, as a path: `inputs.0.url`."""

    def __str__(self) -> str:
        return self.message


class RequestError(VideoQAError):
    """The request is wrong; nothing was submitted."""

    code = "invalid_request"
    stage = "submitting"


class InvalidRequest(RequestError):
    """A field is unknown, missing, of the wrong type or outside its limits."""

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
    """As many jobs wait for this model as may; nothing was recorded."""

    code = "queue_full"
    retryable = True
    stage = "submitting"


class SubmittedInPart(VideoQAError):
    """Of many requests some were recorded and others not."""

    code = "submitted_in_part"
    stage = "submitting"

    def __init__(self, job_ids: Sequence[str | None], refused: Mapping[int, VideoQAError]) -> None:
        """
        Arguments:
            job_ids: of the jobs that were recorded, in the order of the requests; None in the place of
                a refused one. Requests after the last were not looked at.
            refused: why, by the request's number.
        """
        number, error = next(iter(refused.items()))
        recorded = sum(job_id is not None for job_id in job_ids)
        super().__init__(
            f"{recorded} jobs are recorded, {len(refused)} refused, the rest was not submitted; "
            f"request {number}: {error.message} ({error.code}). `job_ids` says which are recorded; with "
            "idempotency keys all can be submitted again"
        )
        self.job_ids = list(job_ids)
        self.refused = dict(refused)


class IdempotencyConflict(RequestError):
    """The idempotency key was used before with another request."""

    code = "idempotency_conflict"


class ManifestRefused(RequestError):
    """Lines of a manifest are wrong or double; no row of it was started."""

    code = "manifest_refused"


class LookupFailed(VideoQAError):
    """The job id does not lead to what was asked for."""

    code = "lookup_failed"


class JobNotFound(LookupFailed):
    """No job with this id was ever recorded here, or its record ended more than a week ago."""

    code = "job_not_found"


class JobExpired(LookupFailed):
    """The job existed; its record outlived `result_ttl_s`, or was purged, and is gone."""

    code = "job_expired"


class JobNotFinished(LookupFailed):
    """The job has no result yet."""

    code = "job_not_finished"
    retryable = True


class JobFailed(LookupFailed):
    """The job ended without a result: failed, canceled or expired."""

    code = "job_failed"


class NotRetryable(LookupFailed):
    """Only a failed, canceled or expired job can be retried, and only a failed one purged."""

    code = "not_retryable"


class ServiceError(VideoQAError):
    """The system around the job does not work."""

    code = "service_error"


class RedisUnavailable(ServiceError):
    """Redis does not answer."""

    code = "redis_unavailable"
    retryable = True


class WaitTimeout(ServiceError):
    """The caller's own waiting time is over; the job goes on."""

    code = "wait_timeout"
    retryable = True


class ConfigurationError(ServiceError):
    """A setting is wrong."""

    code = "configuration_error"


class JobError(VideoQAError):
    """Ends an attempt of a job."""

    code = "job_error"


class SourceError(JobError):
    """The bytes of an input could not be had."""

    code = "source_error"
    stage = "fetching"


class SourceNotFound(SourceError):
    """The file, the HTTP resource (404, 410) or the S3 key does not exist."""

    code = "source_not_found"


class BucketNotFound(SourceError):
    """The S3 bucket does not exist."""

    code = "bucket_not_found"


class SourceDenied(SourceError):
    """Reading is forbidden: HTTP 401 or 403, S3 AccessDenied, file permissions or roots."""

    code = "source_denied"


class AddressForbidden(SourceError):
    """The URL leads to an address that workers may not fetch from."""

    code = "address_forbidden"


class SourceTimeout(SourceError):
    """The source did not deliver in time."""

    code = "source_timeout"
    retryable = True


class SourceUnreachable(SourceError):
    """No connection: refused, reset, or the name does not resolve."""

    code = "source_unreachable"
    retryable = True


class SourceUnavailable(SourceError):
    """The source answered that it can't right now: HTTP 408, 425, 429 or 5xx, S3 SlowDown."""

    code = "source_unavailable"
    retryable = True


class SourceHttpError(SourceError):
    """The source refused the request for another reason, or its certificate proves nothing."""

    code = "source_http_error"


class SourceEmpty(SourceError):
    """The source has no bytes."""

    code = "source_empty"


class SourceTooLarge(SourceError):
    """More bytes of the source were needed than the worker's `max_source_bytes`."""

    code = "source_too_large"


class InputChanged(SourceError):
    """The source changed while it was read."""

    code = "input_changed"


class ChecksumMismatch(SourceError):
    """The bytes came, twice, with another checksum than their store names."""

    code = "checksum_mismatch"
    retryable = True


class SpoolFull(SourceError):
    """The worker's disk has no room for the input."""

    code = "spool_full"
    retryable = True


class SamplingError(JobError):
    """No frames could be taken from an input."""

    code = "sampling_error"
    stage = "sampling"


class NotAVideo(SamplingError):
    """The bytes are not a video or image of an allowed format: a web page, say."""

    code = "not_a_video"


class NoVideoStream(SamplingError):
    """The file has no picture: audio only."""

    code = "no_video_stream"


class VideoCorrupt(SamplingError):
    """The file is a video, and not one frame of it can be decoded."""

    code = "video_corrupt"


class VideoTruncated(SamplingError):
    """The file ends before the pictures that it promises."""

    code = "video_truncated"


class VideoTooLarge(SamplingError):
    """The video is beyond one of the worker's limits; its kinds say which."""

    code = "video_too_large"


class PictureTooLarge(VideoTooLarge):
    """The video's pictures have more pixels than the worker's `max_pixels`."""

    code = "picture_too_large"


class VideoTooLong(VideoTooLarge):
    """The video lasts longer than the worker's `max_duration_s`."""

    code = "video_too_long"


class TooManyStreams(VideoTooLarge):
    """The file has more streams than the worker's `max_streams`."""

    code = "too_many_streams"


class TooManyPackets(VideoTooLarge):
    """More packets had to be read than the worker's `max_packets`."""

    code = "too_many_packets"


class TooManySegments(VideoTooLarge):
    """The video would be cut into more segments than the worker's `max_segments`."""

    code = "too_many_segments"


class FramesTooLarge(VideoTooLarge):
    """The frames asked for take more memory than the worker's `max_frames_bytes`."""

    code = "frames_too_large"


class ClipOutOfRange(SamplingError):
    """The clip range lies outside the video."""

    code = "clip_out_of_range"


class DecodeTimeout(SamplingError):
    """Decoding took longer than the worker's limit."""

    code = "decode_timeout"


class DecoderOutOfMemory(SamplingError):
    """Decoding needed more memory than the worker's `decoder_memory_bytes`."""

    code = "decoder_out_of_memory"


class DecoderCrashed(SamplingError):
    """The process that decoded the video died; the worker lives on."""

    code = "decoder_crashed"
    retryable = True


class GenerationError(JobError):
    """The model gave no answer."""

    code = "generation_error"
    stage = "generating"


class PromptTooLong(GenerationError):
    """Frames and question together exceed the model's context."""

    code = "prompt_too_long"


class UnsupportedInput(GenerationError):
    """The model cannot take this kind of input."""

    code = "unsupported_input"


class ModelError(GenerationError):
    """The model raised while it generated."""

    code = "model_error"
    retryable = True


class OutOfMemory(GenerationError):
    """The device had no memory for this job, even alone in its batch."""

    code = "out_of_memory"
    retryable = True


class EngineStopped(GenerationError):
    """The engine stopped before the answer was complete."""

    code = "engine_stopped"
    retryable = True
    had_begun = True
    """False: the question only waited. It did nothing to the engine, and the attempt is not counted."""


class ModelServerUnavailable(GenerationError):
    """The server that has the model does not answer, is overloaded, or broke the answer off."""

    code = "model_server_unavailable"
    retryable = True


class ModelServerError(GenerationError):
    """The server that has the model refuses the question."""

    code = "model_server_error"


class OutputError(JobError):
    """The result could not be written to object storage."""

    code = "output_error"
    stage = "storing"


class OutputDenied(OutputError):
    """The worker may not write there."""

    code = "output_denied"


class OutputNotFound(OutputError):
    """The output's bucket or folder does not exist."""

    code = "output_not_found"


class OutputUnavailable(OutputError):
    """Object storage does not answer, or is full."""

    code = "output_unavailable"
    retryable = True


class LifecycleError(JobError):
    """The job's clock ran out, it was canceled, or its worker was lost."""

    code = "lifecycle_error"


class JobCanceled(LifecycleError):
    """Somebody canceled the job."""

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
    """This worker shuts down; it gives the job back for another to run."""

    code = "worker_stopping"
    retryable = True


class LeaseLost(LifecycleError):
    """This worker no longer holds the job; another may. Its writes are refused."""

    code = "lease_lost"


class InternalError(JobError):
    """A fault in videoqa itself; the worker's log has the traceback."""

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
"""Each code that can reach a user, and its class."""
