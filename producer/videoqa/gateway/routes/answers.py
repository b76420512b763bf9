"""Models of answers: the contract's models as the routes of `/v1` send them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from videoqa.contract import (
    ArchiveRun,
    BulkAction,
    BulkKind,
    BulkPreview,
    DeadCount,
    Event,
    FrameUsed,
    Image,
    Job,
    JobFilter,
    JobRequest,
    Priority,
    Question,
    QueueInfo,
    Result,
    RunReport,
    Sampling,
    Sheet,
    UsageBy,
    UsageRow,
    Video,
    Warn,
    WorkerInfo,
)
from videoqa.gateway.access.audit import AuditEntry
from videoqa.gateway.access.keys import ApiKey
from videoqa.gateway.webhooks import Delivery

__all__ = [
    "SET_BY_GATEWAY",
    "AuditList",
    "BulkBody",
    "BulkList",
    "DeadList",
    "DeliveryCounts",
    "DeliveryLinks",
    "DeliveryList",
    "FileBody",
    "FileDeleted",
    "FileList",
    "FileObject",
    "InputError",
    "InputEstimate",
    "JobBody",
    "JobEstimate",
    "JobEvent",
    "JobLinks",
    "JobList",
    "JobPreview",
    "JobsBody",
    "KeyList",
    "LinkedDelivery",
    "LinkedJob",
    "LinkedPreview",
    "MadeKey",
    "ModelEntry",
    "ModelList",
    "PreviewBody",
    "QueueChoice",
    "QueueList",
    "RefusedRow",
    "RotateBody",
    "RowError",
    "RunBody",
    "RunList",
    "Secret",
    "Status",
    "SubmittedRow",
    "SubmittedRows",
    "UploadBody",
    "UploadEnd",
    "UploadObject",
    "UploadPartBody",
    "UploadPartObject",
    "UsageList",
    "WorkerList",
]

SET_BY_GATEWAY = ("tenant", "output")
"""Fields of a request that the key decides, since workers read and write with their own credentials."""


class JobBody(JobRequest):
    """One or more questions about the same videos and images."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Returns the schema without what the gateway sets."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        for name in SET_BY_GATEWAY:
            schema["properties"].pop(name, None)
        return schema


class JobsBody(BaseModel, extra="forbid"):
    """Many requests at once."""

    jobs: list[JobBody] = Field(min_length=1, max_length=1000)


class InputError(BaseModel):
    """The error that a worker would meet at an input now."""

    code: str
    message: str
    param: str | None


class InputEstimate(BaseModel):
    """The facts that the header of an input gives."""

    kind: Literal["video", "image"]
    url: str
    """URL of the input, without credentials and query."""
    duration_s: float | None
    """Length of the clip; null: an image, or unknown."""
    frames: int | None
    """Frames that the model would see."""
    bytes: int | None
    """Bytes that a worker would fetch; 0 for a file of its own."""
    width: int | None
    height: int | None
    error: InputError | None


class JobEstimate(BaseModel):
    """The cost of a request's job, as far as the headers of its inputs tell."""

    valid: Literal[True] = True
    """Always true: a request that is not valid has an error."""
    estimated: bool
    """False: nothing is known about the inputs, for this `reason`."""
    reason: Literal["no_probe", "too_busy", "too_slow", "too_large", "probe_failed"] | None = None
    """no_probe: the gateway has no `videoqa-worker` beside it. too_busy, too_slow: try again later. too_large: a
    preview would fetch more than 256 MiB of a file. probe_failed: the gateway's log tells why."""
    inputs: list[InputEstimate] = []
    frames: int | None = None
    """Frames of all inputs together; null: the length of one is unknown."""
    prompt_tokens: int | None = None
    """Tokens of all prompts; null: unknown, for example since the gateway does not have the model's processor."""
    bytes: int | None = None
    """Bytes of all inputs together."""


class PreviewBody(BaseModel, extra="forbid"):
    """The part of a request that decides which frames its job takes."""

    inputs: list[Video | Image | str] | Video | Image | str
    questions: list[Question | str] | Question | str | None = None
    """Only for the estimate of the prompts' tokens; null: no estimate."""
    sampling: Sampling | None = None
    model: str | None = None


class JobPreview(JobEstimate):
    """The frames that a job would take, as thumbnails on one sheet, with an estimate of its cost."""

    shown: list[FrameUsed] = []
    """The frames that have a thumbnail, in order; of very many every second, fourth, ... has one."""
    taken: int | None = None
    """Number of the frames that were taken."""
    complete: bool | None = None
    """False: the video has more segments than are shown."""
    warnings: list[Warn] = []
    """Warnings of the sampling, as the job's result would have them."""
    sheet: Sheet | None = None
    """Layout of the picture; its `frames` are indexes of `shown`."""
    jpeg: str | None = Field(
        default=None,
        json_schema_extra={"contentEncoding": "base64", "contentMediaType": "image/jpeg"},
    )
    """The picture, in base64; null: there are no frames, and `reason` or the inputs' errors tell why."""


class JobLinks(BaseModel):
    """Paths of a job's routes."""

    self: str
    events: str
    result: str
    sheet: str
    timeline: str
    cancel: str

    @classmethod
    def make(cls, job_id: str) -> JobLinks:
        """Makes the links of a job."""
        base = f"/v1/jobs/{job_id}"
        return cls(
            self=base,
            events=f"{base}/events",
            result=f"{base}/result",
            sheet=f"{base}/sheet",
            timeline=f"{base}/timeline",
            cancel=f"{base}/cancel",
        )


class LinkedJob(Job):
    """The current state of a job, with links to its routes."""

    links: JobLinks
    result: Result | None = Field(default=None, exclude_if=lambda result: result is None)
    """The result, if the caller preferred to wait and the job has succeeded in that time."""


class JobEvent(Event):
    """One step in the life of a job; fields without a value are left out."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Returns the schema with the fields that each event has."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        fields = cls.model_fields.items()
        schema["required"] = [name for name, field in fields if field.is_required()]
        return schema


class JobList(BaseModel):
    """One page of a list of jobs, newest first."""

    jobs: list[LinkedJob]
    unreadable: list[str]
    """Ids of jobs of this page whose records this release cannot read."""
    looked_at: int
    """Jobs that were looked at for this page."""
    next_cursor: str | None
    """Cursor of the next page; null: there is none."""
    has_more: bool


class DeadList(BaseModel):
    """Numbers of dead letters by code, the most frequent first."""

    codes: list[DeadCount]


class BulkBody(BaseModel, extra="forbid"):
    """A bulk action that is to begin, or to be previewed."""

    action: BulkKind
    filter: JobFilter
    """At least one field besides `until` and `ended_until`."""
    cut_off: AwareDatetime | None = None
    """Time of the preview; null: now."""
    expected: int | None = Field(default=None, ge=0)
    """Number of jobs of the preview; a purge needs it."""
    dry_run: bool = False
    """True: nothing is changed, and the answer is a preview."""
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=256)
    """Another place for the key of the header `Idempotency-Key`."""


class LinkedPreview(BulkPreview):
    """The jobs that a bulk action would change if it began now."""

    examples: list[LinkedJob]  # type: ignore[assignment]


class BulkList(BaseModel):
    """Bulk actions, the last one first."""

    actions: list[BulkAction]


class RowError(BaseModel):
    """The error of one row of a larger request."""

    code: str
    message: str
    param: str | None
    """Path of the field that is at fault: `jobs.0.inputs.0.url`."""


class SubmittedRow(BaseModel):
    """A row that became a job."""

    job: LinkedJob


class RefusedRow(BaseModel):
    """A row that was refused."""

    error: RowError


class SubmittedRows(BaseModel):
    """The jobs or errors of all rows, in their order."""

    jobs: list[SubmittedRow | RefusedRow]


class QueueList(BaseModel):
    """All queues."""

    queues: list[QueueInfo]


class QueueChoice(BaseModel):
    """The queues of one model, of both priorities or of one."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(min_length=1, max_length=256)
    """Name of the model; null: jobs that name no model."""
    priority: Priority | None = None
    """Null: both."""


class WorkerList(BaseModel):
    """All workers that were heard within the last minute."""

    workers: list[WorkerInfo]


class ModelEntry(BaseModel):
    """A model that ready workers serve."""

    id: str
    object: Literal["model"]
    created: int
    """Start of its oldest worker, as UNIX time."""
    owned_by: str


class ModelList(BaseModel):
    """All models, in the form of OpenAI's API."""

    object: Literal["list"]
    data: list[ModelEntry]


class UsageList(BaseModel):
    """Sums of what jobs used, by one dimension."""

    first_day: str = Field(alias="from")
    last_day: str = Field(alias="to")
    by: UsageBy
    usage: list[UsageRow]


class RunBody(RunReport):
    """The words of a run about itself."""

    begins: bool = False
    """True in the first words after a start, also of one that continues an earlier run."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Returns the schema without what the key decides."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        for name in ("tenant", "who"):
            schema["properties"].pop(name, None)
        return schema


class RunList(BaseModel):
    """One page of a list of runs, the last start in front."""

    runs: list[ArchiveRun]
    next_cursor: str | None
    """Cursor of the next page; null: there is none."""
    has_more: bool


class DeliveryLinks(BaseModel):
    """Paths of a delivery's routes."""

    self: str
    replay: str
    job: str


class LinkedDelivery(Delivery):
    """One event of a job that is, was or could not be told to a receiver, with links to its routes."""

    links: DeliveryLinks

    @classmethod
    def make(cls, delivery: Delivery) -> LinkedDelivery:
        """Adds the links."""
        base = f"/v1/webhooks/deliveries/{delivery.id}"
        links = DeliveryLinks(self=base, replay=f"{base}/replay", job=f"/v1/jobs/{delivery.job_id}")
        return cls(**dict(delivery), links=links)


class DeliveryCounts(BaseModel):
    """Numbers of the deliveries that are kept, by their status."""

    pending: int
    delivered: int
    failed: int


class DeliveryList(BaseModel):
    """One page of a list of deliveries, newest first."""

    deliveries: list[LinkedDelivery]
    counts: DeliveryCounts
    """Numbers of all deliveries of the key's tenant, or of all tenants."""
    next_cursor: str | None
    """Cursor of the next page; null: there is none."""
    has_more: bool


class Secret(BaseModel):
    """The secret that signs a tenant's webhooks, and the one before it while that one still signs."""

    secret: str
    previous: str | None
    """The secret before the last rotation; null: it signs no more."""
    previous_until: datetime | None


class KeyList(BaseModel):
    """All API keys, oldest first."""

    keys: list[ApiKey]


class MadeKey(ApiKey):
    """An API key that was just made or rotated."""

    text: str
    """The key itself, `vqa_ID_SECRET`; it is shown once."""


class RotateBody(BaseModel):
    """The change of a key's secret."""

    overlap_s: float = Field(default=0, ge=0, le=2_592_000)
    """Time for which the old secret is valid as well."""


class AuditList(BaseModel):
    """Changes by operators and administrators, newest first."""

    entries: list[AuditEntry]
    next_cursor: str | None
    """Cursor of the next page; null: there is none."""
    has_more: bool


class Status(BaseModel):
    """The health of the gateway."""

    status: Literal["ok"]


class FileBody(BaseModel):
    """A file as multipart/form-data; the fields come in any order."""

    file: str = Field(json_schema_extra={"contentMediaType": "application/octet-stream"})
    """The bytes, with a file name."""
    purpose: Literal["batch", "vision", "user_data"]
    expires_after_anchor: Literal["created_at"] | None = Field(
        default=None, alias="expires_after[anchor]"
    )
    expires_after_seconds: int | None = Field(
        default=None, ge=3600, le=2_592_000, alias="expires_after[seconds]"
    )


class FileObject(BaseModel):
    """An uploaded file, in the form of OpenAI's API."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: Literal["batch", "vision", "user_data", "batch_output"]
    status: Literal["processed"]
    status_details: None


class FileList(BaseModel):
    """A page of files."""

    object: Literal["list"]
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(BaseModel):
    """The id of a file that was deleted."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


class ExpiresAfter(BaseModel):
    """Time to live of a file."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2_592_000)


class UploadBody(BaseModel):
    """A file that will come in parts."""

    bytes: int = Field(ge=1)
    filename: str
    purpose: Literal["batch", "vision", "user_data"]
    mime_type: str = ""
    expires_after: ExpiresAfter | None = None


class UploadPartBody(BaseModel):
    """A part, as multipart/form-data."""

    data: str = Field(json_schema_extra={"contentMediaType": "application/octet-stream"})


class UploadEnd(BaseModel):
    """The parts of a file, in order."""

    part_ids: list[str]
    md5: str | None = None
    """Digest of the whole file, in hexadecimal digits, if it is to be checked."""


class UploadPartObject(BaseModel):
    """A part of an upload, in the form of OpenAI's API, with its length."""

    id: str
    object: Literal["upload.part"]
    created_at: int
    upload_id: str
    bytes: int


class UploadObject(BaseModel):
    """An upload, in the form of OpenAI's API, with its parts."""

    id: str
    object: Literal["upload"]
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Literal["batch", "vision", "user_data"]
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: FileObject | None
    parts: list[UploadPartObject]
