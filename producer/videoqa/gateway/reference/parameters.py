"""Parameters that several routes share, with their descriptions and examples."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any

from fastapi import Header, Path, Query
from pydantic import AwareDatetime, BeforeValidator

__all__ = [
    "EXAMPLE_BATCH",
    "EXAMPLE_BULK",
    "EXAMPLE_DELIVERY",
    "EXAMPLE_FILE",
    "EXAMPLE_JOB",
    "EXAMPLE_KEY",
    "EXAMPLE_RUN",
    "EXAMPLE_UPLOAD",
    "TAG",
    "BatchId",
    "BulkId",
    "Cursor",
    "Day",
    "DeliveryId",
    "FileId",
    "IdempotencyKey",
    "IfNoneMatch",
    "Instant",
    "JobId",
    "KeyId",
    "LastEventId",
    "OnlyTenant",
    "Prefer",
    "RetryCount",
    "RunId",
    "UploadId",
    "Wait",
]

EXAMPLE_BATCH = "batch_0VcSQe01Xo3bq5JFPyqaUAy9"
EXAMPLE_BULK = "bulk_5f0c1b6c2a0e4d1f8a7b6c5d"
EXAMPLE_DELIVERY = "whd_1a22c4ed6324662563d30a135d8_1764495004000_0"
EXAMPLE_FILE = "file-0VcSQdrzckm09NJFPyqaUAy9"
EXAMPLE_JOB = "job_1a22c4ed6324662563d30a135d8"
EXAMPLE_KEY = "0VcSQdrzckm0"
EXAMPLE_RUN = "run_5f0c1b6c2a0e4d1f8a7b6c5d"
EXAMPLE_UPLOAD = "upload_0VcSQdrzckm09NJFPyqaUAy9"
TAG = {"ETag": "Tag of the answer, for `If-None-Match`."}

_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def _check_time(value: Any) -> Any:
    if isinstance(value, str) and not _TIME.fullmatch(value):
        raise ValueError("expected a time such as 2026-11-30T09:30:00Z, with + as %2B")
    return value


def _check_day(value: Any) -> Any:
    if isinstance(value, str) and not _DAY.fullmatch(value):
        raise ValueError("expected a day such as 2026-11-30")
    return value


Instant = Annotated[AwareDatetime, BeforeValidator(_check_time, json_schema_input_type=datetime)]
"""A time of RFC 3339; pydantic alone would take numbers, and days."""
Day = Annotated[date, BeforeValidator(_check_day, json_schema_input_type=date)]

BatchId = Annotated[str, Path(description="Id of the batch.", examples=[EXAMPLE_BATCH])]
BulkId = Annotated[str, Path(description="Id of the bulk action.", examples=[EXAMPLE_BULK])]
DeliveryId = Annotated[
    str,
    Path(
        description="Id of the delivery, the `webhook-id` of its calls.",
        examples=[EXAMPLE_DELIVERY],
    ),
]
FileId = Annotated[str, Path(description="Id of the file.", examples=[EXAMPLE_FILE])]
JobId = Annotated[str, Path(description="Id of the job.", examples=[EXAMPLE_JOB])]
KeyId = Annotated[str, Path(description="Id of the API key.", examples=[EXAMPLE_KEY])]
RunId = Annotated[str, Path(description="Id of the run.", examples=[EXAMPLE_RUN])]
UploadId = Annotated[str, Path(description="Id of the upload.", examples=[EXAMPLE_UPLOAD])]
Cursor = Annotated[
    str | None,
    Query(
        description="`next_cursor` of the page before.",
        examples=[f"1764495000.000000-{EXAMPLE_JOB}"],
    ),
]
Wait = Annotated[
    str | None,
    Query(
        description="Seconds to wait for the job's end before the answer; at most 120.",
        examples=["30"],
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        description="Makes the call safe to repeat: with the same key and the same body the answer is the first "
        "call's job; another body is refused. Bare or in quotes, at most 256 characters.",
        examples=["order-1017"],
    ),
]
IfNoneMatch = Annotated[
    str | None,
    Header(
        description="ETags that the caller has: if one of them still holds, the answer is 304 without a body.",
        examples=['"5f0c1b6c2a0e4d1f8a7b6c5d4e3f2a1b"'],
    ),
]
LastEventId = Annotated[
    str | None,
    Header(
        description="Id of the last event that the caller has: the stream goes on after it. Browsers' EventSource "
        "sends it by itself.",
        examples=["1764497812345-0"],
    ),
]
OnlyTenant = Annotated[
    str | None,
    Query(
        description="Only this tenant's jobs; another than the key's is refused.",
        examples=["acme"],
    ),
]
Prefer = Annotated[
    str | None,
    Header(
        description="`wait=SECONDS` (RFC 7240): the answer is the finished job, if it ends in this time; at most 120.",
        examples=["wait=30"],
    ),
]
RetryCount = Annotated[
    str | None,
    Header(
        alias="x-stainless-retry-count",
        description="Number of the retry, which OpenAI's clients send: it gets what the call before it began.",
        examples=["0"],
    ),
]
