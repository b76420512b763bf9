"""Every error of videoqa, one class for each code.

A class has a docstring (the meaning of the error), a `code` that never changes, the `stage` of the
job in which it arises, and `retryable`: True if another try may help. A message says what was got,
what was expected, and the next step.

    VideoQAError
    ├── QueueFull, SubmittedInPart, OperatorOnly, WrongKey, RateLimited
    ├── RequestError            the request itself is wrong; nothing was submitted
    │   ├── InvalidRequest, EmptyQuestion, NoMedia, MarkMismatch, AnswerUnsupported
    │   └── IdempotencyConflict, ManifestRefused
    ├── LookupFailed            about a job id
    │   └── JobNotFound, JobExpired, RecordUnreadable, JobNotFinished, JobFailed, NotRetryable
    ├── ServiceError            about the system around the job
    │   ├── Unavailable: GatewayUnavailable, RedisUnavailable (NotReplicated)
    │   └── GatewayError, WaitTimeout, ConfigurationError, ClientClosed
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
    "AnswerNotServed",
    "AnswerUnsupported",
    "BucketNotFound",
    "BulkActionNotFound",
    "ChecksumMismatch",
    "ClientClosed",
    "ClipOutOfRange",
    "ConfigurationError",
    "CountChanged",
    "DecodeTimeout",
    "DecoderCrashed",
    "DecoderLost",
    "DecoderOutOfMemory",
    "DecodingFailed",
    "DeliveryNotFound",
    "EmptyQuestion",
    "EngineStopped",
    "FailureOfJob",
    "FramesTooLarge",
    "GatewayError",
    "GatewayUnavailable",
    "GenerationError",
    "GuideFailed",
    "GuideUnavailable",
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
    "NanLogits",
    "NoMedia",
    "NoTokenAllowed",
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
    "RateLimited",
    "RecordUnreadable",
    "RedisUnavailable",
    "RequestError",
    "SamplingError",
    "ServiceError",
    "SheetExpired",
    "SheetNotKept",
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
    "Unavailable",
    "UnsupportedInput",
    "VideoCorrupt",
    "VideoEncrypted",
    "VideoQAError",
    "VideoTooLarge",
    "VideoTooLong",
    "VideoTruncated",
    "WaitTimeout",
    "WebhookInvalid",
    "WorkerLost",
    "WorkerStopping",
    "WrongKey",
]

Stage = Literal["submitting", "queued", "fetching", "sampling", "generating", "storing"]
STAGES: tuple[Stage, ...] = get_args(Stage)

MAX_MESSAGE = 10_000
"""Characters of an error's message; what was found may be a server's, and of any length."""


class VideoQAError(Exception):
    """Base class of all errors that videoqa raises on purpose."""

    code: str = "error"
    retryable: bool = False
    retried_once: ClassVar[bool] = False
    """True: a second such failure on the same input is final, whatever attempts are left."""
    stage: ClassVar[Stage | None] = None
    next_step: ClassVar[str] = ""
    """Advice for whoever meets the error, as the reference of codes has it."""

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


class WebhookInvalid(VideoQAError):
    """A call of a webhook is not signed by the secret, too old, or no event."""

    code = "webhook_invalid"
    next_step = (
        "Pass the body and the headers as they came, and the secret that `videoqa webhooks "
        "secret` prints. Else refuse the call with 400."
    )


class InvalidRequest(RequestError):
    """A field of the request is unknown, missing, of the wrong type, or outside of its limits."""

    code = "invalid_request"
    next_step = "Correct the field."


class EmptyQuestion(RequestError):
    """A question has no text."""

    code = "empty_question"
    next_step = "Add text."


class NoMedia(RequestError):
    """The request names no video and no image."""

    code = "no_media"
    next_step = "Add at least one video or image."


class MarkMismatch(RequestError):
    """A question's `<video>` or `<image>` marks do not match the inputs."""

    code = "mark_mismatch"
    next_step = "Place each input once, or leave all marks out."


class AnswerUnsupported(RequestError):
    """The form of an answer, such as its JSON schema, is none that a worker could serve."""

    code = "answer_unsupported"
    next_step = "Simplify the part of the schema or pattern that `param` names."


class QueueFull(VideoQAError):
    """The queue of this model and priority holds `max_queued` jobs; nothing was recorded."""

    code = "queue_full"
    next_step = "Submit again later, add workers, or raise `VIDEOQA_MAX_QUEUED`."
    retryable = True
    stage = "submitting"


class SubmittedInPart(VideoQAError):
    """Some requests of `submit_many` were recorded, and others were not."""

    code = "submitted_in_part"
    next_step = (
        "`job_ids` and `refused` tell which; with idempotency keys all can be submitted again."
    )
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
    next_step = "Use a new key for a new request."


class ManifestRefused(RequestError):
    """A manifest has wrong or duplicate lines; none of its rows was started."""

    code = "manifest_refused"
    next_step = "Correct the lines that the message names."


class LookupFailed(VideoQAError):
    """A job, or the result of one, is not available under this job id."""

    code = "lookup_failed"


class JobNotFound(LookupFailed):
    """No job with this id was ever recorded here, or its record ended more than a week ago."""

    code = "job_not_found"
    next_step = "Check the id, `VIDEOQA_REDIS_URL` and `VIDEOQA_PREFIX`."


class DeliveryNotFound(LookupFailed):
    """No webhook's delivery with this id is kept here."""

    code = "delivery_not_found"
    next_step = "`videoqa webhooks list` shows all."


class RunNotFound(LookupFailed):
    """No run with this id is known here, or its last word was more than 30 days ago."""

    code = "run_not_found"


class BulkActionNotFound(LookupFailed):
    """No bulk action with this id is known here, or it ended more than 7 days ago."""

    code = "bulk_action_not_found"


class CountChanged(VideoQAError):
    """More jobs match than were confirmed, so that none was deleted."""

    code = "count_changed"


class JobExpired(LookupFailed):
    """The job existed, but its record is gone: its `result_ttl_s` is over, or it was purged."""

    code = "job_expired"
    next_step = "Read the result object in storage."


class RecordUnreadable(LookupFailed):
    """The job's record is none that this release reads: a newer one, or another program, wrote it."""

    code = "record_unreadable"
    next_step = (
        "Upgrade this side. If no newer release is in use, another program writes under the "
        "prefix: delete the key that the message names."
    )


class SheetNotKept(LookupFailed):
    """The job has succeeded, and no sheet of its frames was kept."""

    code = "sheet_not_kept"
    next_step = (
        'Submit with `"sheet": true`, or set `VIDEOQA_SHEETS=true` on the workers; a warning '
        "in the result tells why one could not be kept."
    )


class SheetExpired(LookupFailed):
    """The job's sheet was deleted from storage."""

    code = "sheet_expired"
    next_step = 'Submit the request again with `"cache": "refresh"`.'


class JobNotFinished(LookupFailed):
    """The job has no result yet."""

    code = "job_not_finished"
    next_step = "`wait` first."
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
    next_step = "See the job's `failure`; `retry` reopens it."

    def __init__(
        self, message: str, *, failure: FailureOfJob | None = None, param: str | None = None
    ) -> None:
        super().__init__(message, param=param)
        self.failure = failure
        """The job's `Failure`, with the code of what went wrong; None: the record has none."""


class NotRetryable(LookupFailed):
    """The job is in no state for it: failed, canceled and expired jobs can be retried, and ended ones deleted."""

    code = "not_retryable"
    next_step = "Cancel it first, or wait for its end."


class OperatorOnly(VideoQAError):
    """The client is one tenant's, and the call would reach all tenants or another one."""

    code = "operator_only"
    next_step = "Use a client without a tenant."


class ServiceError(VideoQAError):
    """The system around the job does not work."""

    code = "service_error"


class Unavailable(ServiceError):
    """The server that has the jobs does not answer: Redis, or a gateway."""

    code = "unavailable"
    retryable = True


class GatewayUnavailable(Unavailable):
    """The gateway cannot be reached, does not answer in time, or breaks its answers off."""

    code = "gateway_unavailable"
    next_step = "Try again; a submit that was repeated within one call is one job."


class RedisUnavailable(Unavailable):
    """Redis does not answer."""

    code = "redis_unavailable"
    next_step = "Try again; with an `idempotency_key` a repeated submit cannot make a second job."
    retryable = True


class NotReplicated(RedisUnavailable):
    """Redis has recorded it, but too few replicas have acknowledged it in time; repeat the call."""

    code = "not_replicated"
    next_step = (
        "Repeat the call, a submit with the same `idempotency_key`; look at the replicas with "
        "`videoqa doctor`."
    )


class GatewayError(ServiceError):
    """A gateway refused the request for a reason of HTTP's, or its answer is none of a gateway."""

    code = "gateway_error"
    next_step = "See the message; check `VIDEOQA_URL` with `videoqa doctor`."

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        retryable: bool = False,
        param: str | None = None,
    ) -> None:
        """
        Arguments:
            code: the code that the gateway gave, if it has no class of its own.
        """
        super().__init__(message, param=param)
        if code is not None:
            self.code = code
        self.retryable = retryable


class WrongKey(VideoQAError):
    """The API key is missing, malformed, unknown, revoked or over."""

    code = "wrong_key"
    next_step = (
        "Send `Authorization: Bearer vqa_...`: set `VIDEOQA_API_KEY`, or log in again with "
        "`videoqa login`; `videoqa keys create` makes a key."
    )


class RateLimited(VideoQAError):
    """A limit of the API key is reached; a later request may pass."""

    code = "rate_limited"
    next_step = (
        "Wait for the seconds of `Retry-After`, and send the request again, as our clients do "
        "for up to 10 s; or ask for a higher limit."
    )
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        limit: str = "",
        retry_after_s: float = 1.0,
        param: str | None = None,
    ) -> None:
        """
        Arguments:
            limit: name of the limit.
            retry_after_s: time after which there is room again, as far as it is known.
        """
        super().__init__(message, param=param)
        self.limit = limit
        self.retry_after_s = retry_after_s


class WaitTimeout(ServiceError):
    """The caller's waiting time is over; the job goes on."""

    code = "wait_timeout"
    next_step = "Wait again."
    retryable = True


class ConfigurationError(ServiceError):
    """A setting has a wrong value, or does not fit the others."""

    code = "configuration_error"
    next_step = "Correct the variable; `videoqa doctor` checks them all."


class ClientClosed(ServiceError):
    """A client was used after `close`, or closed while a call was waiting."""

    code = "client_closed"
    next_step = "Make a new client; close it after its last call."

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
    next_step = "Correct the URL."


class BucketNotFound(SourceError):
    """The S3 bucket does not exist."""

    code = "bucket_not_found"
    next_step = "Correct the URL."


class SourceDenied(SourceError):
    """Reading the source is forbidden: HTTP 401 or 403, S3 AccessDenied, file permissions or roots."""

    code = "source_denied"
    next_step = "Grant access, or submit a presigned URL that has not expired."


class AddressForbidden(SourceError):
    """The URL leads to an address that workers may not fetch from."""

    code = "address_forbidden"
    next_step = (
        "Use a public address or S3, or set `VIDEOQA_PRIVATE_ADDRESSES=true` on workers that "
        "may fetch from your network."
    )


class SourceTimeout(SourceError):
    """The source did not deliver in time."""

    code = "source_timeout"
    next_step = "Retried automatically. Check the source."
    retryable = True


class SourceUnreachable(SourceError):
    """The source cannot be connected to: refused, reset, or its name does not resolve."""

    code = "source_unreachable"
    next_step = "Retried automatically. Check the host name and the network."
    retryable = True


class SourceUnavailable(SourceError):
    """The source cannot serve the request right now: HTTP 408, 425, 429 or 5xx, S3 SlowDown."""

    code = "source_unavailable"
    next_step = "Retried automatically. Check the source."
    retryable = True


class SourceHttpError(SourceError):
    """The source refused the request for another reason, or its certificate is not valid."""

    code = "source_http_error"
    next_step = "See the status in the message; `SSL_CERT_FILE` adds certificate authorities."


class SourceEmpty(SourceError):
    """The source has no bytes."""

    code = "source_empty"
    next_step = "Submit again once the file is complete."


class SourceTooLarge(SourceError):
    """The source needs more bytes than the worker's `max_source_bytes`."""

    code = "source_too_large"
    next_step = "Submit a smaller file, or raise the limit."


class InputChanged(SourceError):
    """The source changed while it was read, or copies behind its address differ."""

    code = "input_changed"
    next_step = (
        "Retried automatically. Submit again once the file is complete; servers behind one address must send "
        "one ETag for one file."
    )
    retryable = True


class ChecksumMismatch(SourceError):
    """The fetched bytes had, twice, another checksum than their store states."""

    code = "checksum_mismatch"
    next_step = "Retried automatically. If it persists, upload the file again."
    retryable = True


class SpoolFull(SourceError):
    """The worker's disk has no space left for the input."""

    code = "spool_full"
    next_step = (
        "Retried automatically. Free space in `VIDEOQA_SPOOL_DIR`, raise "
        "`VIDEOQA_SPOOL_QUOTA_BYTES`, or lower `VIDEOQA_SLOTS`."
    )
    retryable = True


class SamplingError(JobError):
    """No frames could be sampled from an input."""

    code = "sampling_error"
    stage = "sampling"


class NotAVideo(SamplingError):
    """The input is not a video or image of an allowed format, but a web page, for example."""

    code = "not_a_video"
    next_step = "Open the URL in a browser to see what it serves."


class NoVideoStream(SamplingError):
    """The file has no video stream, only audio."""

    code = "no_video_stream"
    next_step = "Correct the URL."


class VideoCorrupt(SamplingError):
    """The file is a video, but none of its frames can be decoded."""

    code = "video_corrupt"
    next_step = "Re-encode it."


class VideoEncrypted(SamplingError):
    """The video's pictures are encrypted (DRM), and no worker has their keys."""

    code = "video_encrypted"
    next_step = "Submit a copy without protection."


class VideoTruncated(SamplingError):
    """The file ends before the frames that its header lists."""

    code = "video_truncated"
    next_step = "Upload it again."


class VideoTooLarge(SamplingError):
    """The video exceeds one of the worker's limits; each subclass is one limit."""

    code = "video_too_large"
    next_step = "Raise that limit, or submit a smaller video."


class PictureTooLarge(VideoTooLarge):
    """The video's frames have more pixels than the worker's `max_pixels`."""

    code = "picture_too_large"
    next_step = "Submit a smaller version, or raise the limit."


class VideoTooLong(VideoTooLarge):
    """The video lasts longer than the worker's `max_duration_s`."""

    code = "video_too_long"
    next_step = "Cut it into parts, or raise the limit."


class TooManyStreams(VideoTooLarge):
    """The file has more streams than the worker's `max_streams`."""

    code = "too_many_streams"
    next_step = "Keep only the video stream, or raise the limit."


class TooManyPackets(VideoTooLarge):
    """Sampling would read more packets than the worker's `max_packets`."""

    code = "too_many_packets"
    next_step = "Ask about a shorter clip, or raise the limit."


class TooManySegments(VideoTooLarge):
    """The video would be cut into more segments than the worker's `max_segments`."""

    code = "too_many_segments"
    next_step = "Use longer segments, less overlap, or a shorter clip."


class FramesTooLarge(VideoTooLarge):
    """The frames asked for take more memory than the worker's `max_frames_bytes`."""

    code = "frames_too_large"
    next_step = "Ask for fewer `frames`, or scale the video down."


class ClipOutOfRange(SamplingError):
    """The clip lies outside of the video."""

    code = "clip_out_of_range"
    next_step = "Correct `start` and `end`."


class GuideFailed(SamplingError):
    """OpenCV cannot open the video, counts fewer pictures than `frames`, or cannot read one: the guide's steps fail."""

    code = "guide_failed"
    next_step = "Take the method `uniform`, or ask for fewer `frames`."


class GuideUnavailable(SamplingError):
    """The method `guide` was asked for, and the worker has no OpenCV."""

    code = "guide_unavailable"
    next_step = "Install the extra `guide` of `videoqa-worker` on the workers, or take the method `uniform`."


class DecodeTimeout(SamplingError):
    """Decoding took longer than the worker's limit."""

    code = "decode_timeout"
    next_step = "Ask about a shorter clip, or raise the limit."


class DecodingFailed(SamplingError):
    """A library that decodes failed on the input in a way that videoqa does not foresee."""

    code = "decoding_failed"
    next_step = (
        "Re-encode it, as H.264 in MP4 or as PNG for example, and report a bug with the file: "
        "the worker's log has the traceback."
    )


class DecoderOutOfMemory(SamplingError):
    """Decoding needed more memory than the worker's `decoder_memory_bytes`."""

    code = "decoder_out_of_memory"
    next_step = "Scale the video down, or raise the limit."


class DecoderCrashed(SamplingError):
    """The process that decoded the video died; the worker goes on."""

    code = "decoder_crashed"
    next_step = "Retried once. Re-encode the video, and report a bug with the file."
    retryable = True
    retried_once = True


class DecoderLost(SamplingError):
    """No process decoded the video: it could not start, or was killed from outside, mostly for want of memory.

    Nothing says that the video was the cause: a kernel short of memory kills decoding processes first.
    """

    code = "decoder_lost"
    next_step = (
        "Retried automatically. Give the machine more memory, or set fewer `VIDEOQA_DECODERS`."
    )
    retryable = True


class GenerationError(JobError):
    """The model produced no answer."""

    code = "generation_error"
    stage = "generating"


class PromptTooLong(GenerationError):
    """Frames and question together exceed the model's context."""

    code = "prompt_too_long"
    next_step = "Ask for fewer `frames`, fewer inputs, or a shorter question."
    excess: float | None = None
    """Length of the prompt, as a multiple of what the context has beside the answer; None: it is not known."""


class UnsupportedInput(GenerationError):
    """The model does not support this kind of input."""

    code = "unsupported_input"
    next_step = "Use another model."


class SystemUnsupported(GenerationError):
    """The model's chat template has no place for `system`, the instructions of a request."""

    code = "system_unsupported"
    next_step = "Put the instructions into the question, or set `VIDEOQA_CHAT_TEMPLATE` to a template that has one."


class FrameLimitUnmet(GenerationError):
    """The model's processor cannot keep `max_pixels` or `max_tokens_per_frame`."""

    code = "frame_limit_unmet"
    next_step = "Raise the limit or leave it out: the message says what the model makes of a frame."


class ModelError(GenerationError):
    """The model raised an error during generation."""

    code = "model_error"
    next_step = "Retried automatically, alone in its batch. If it persists, report a bug."
    retryable = True


class NanLogits(GenerationError):
    """The model produced NaN or infinite logits, mostly an overflow of float16."""

    code = "nan_logits"
    next_step = "Retried once. If it persists, run the model in `bfloat16` or `float32`, or take another revision."
    retryable = True
    retried_once = True


class NoTokenAllowed(GenerationError):
    """The generation settings of the checkpoint forbid every token."""

    code = "no_token_allowed"
    next_step = "Correct `suppress_tokens`, `bad_words_ids` and the like in the checkpoint."


class AnswerNotServed(GenerationError):
    """The model cannot write answers of the form that was asked for, or the form costs too much to hold it to."""

    code = "answer_not_served"
    next_step = "Simplify the schema or pattern, or ask a model whose vocabulary has what it needs."


class OutOfMemory(GenerationError):
    """The device has not enough memory for this job, even alone in its batch."""

    code = "out_of_memory"
    next_step = "Ask for fewer `frames`, or use a smaller model or a larger GPU."
    retryable = True


class EngineStopped(GenerationError):
    """The engine stopped before the answer was complete."""

    code = "engine_stopped"
    next_step = "Retried automatically, on another worker if possible."
    retryable = True
    had_begun = True
    """False: the question was still waiting, so it cannot be to blame; the attempt is not counted."""


class ModelServerUnavailable(GenerationError):
    """The model server does not answer, is overloaded, or broke the answer off."""

    code = "model_server_unavailable"
    next_step = "Retried automatically. If it persists, check the server and `VIDEOQA_SERVER_URL`."
    retryable = True


class ModelServerError(GenerationError):
    """The model server refused the question."""

    code = "model_server_error"
    next_step = "See its reason in the message: too long, unknown model, wrong key."


class OutputError(JobError):
    """The result could not be written to object storage."""

    code = "output_error"
    stage = "storing"


class OutputDenied(OutputError):
    """The worker may not write to the output's URL."""

    code = "output_denied"
    next_step = "Check credentials, permissions and `VIDEOQA_OUTPUT_ROOTS`."


class OutputNotFound(OutputError):
    """The output's bucket or folder does not exist."""

    code = "output_not_found"
    next_step = "Create the bucket, or correct `output`."


class OutputConflict(OutputError):
    """Another job's result, or a foreign file, lies where the result would be written; it stays."""

    code = "output_conflict"
    next_step = (
        "Put `{job_id}` into `output`, choose another `custom_id`, or name the earlier job in "
        "`replaces`; `retry` then stores the answer."
    )


class OutputUnavailable(OutputError):
    """Object storage does not answer, or is full."""

    code = "output_unavailable"
    next_step = "Retried automatically. Check the storage."
    retryable = True


class LifecycleError(JobError):
    """The job ran out of time, was canceled, or lost its worker."""

    code = "lifecycle_error"


class JobCanceled(LifecycleError):
    """The job was canceled on request."""

    code = "canceled"
    next_step = "Nothing; `retry` reopens it."


class JobTimeout(LifecycleError):
    """The attempt ran longer than `timeout_s`."""

    code = "job_timeout"
    next_step = "Raise `timeout_s`, or ask about fewer frames."


class StartByPassed(LifecycleError):
    """No worker started the job before `start_by`."""

    code = "start_by_passed"
    next_step = (
        "Start more workers, or submit with a later `start_by`; `retry` reopens it without one."
    )
    stage = "queued"


class WorkerLost(LifecycleError):
    """The worker vanished in each of the job's attempts."""

    code = "worker_lost"
    next_step = "Look for the reason in the worker's log (a crash, out of memory), then `retry`."
    retryable = True


class WorkerStopping(LifecycleError):
    """The worker shuts down, and gives the job back for another one to run."""

    code = "worker_stopping"
    next_step = "Nothing: another worker takes the job."
    retryable = True


class LeaseLost(LifecycleError):
    """The worker no longer holds the job's lease, which another one may hold now; its writes are refused."""

    code = "lease_lost"
    next_step = "Nothing: another worker has the job."


class InternalError(JobError):
    """videoqa itself has a fault; the worker's log has the traceback."""

    code = "internal_error"
    next_step = "Retried automatically. Look for the job id in the worker's log and report a bug."
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
