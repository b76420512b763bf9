"""Inputs of jobs: their bytes, for people who look at a job."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Path, Response

from videoqa.errors import OutputDenied
from videoqa.gateway.access.caller import Caller, Reader
from videoqa.gateway.files.storage_errors import translate_storage_errors
from videoqa.gateway.http.byte_ranges import AskedBytes, answer_bytes
from videoqa.gateway.http.problems import HttpError
from videoqa.gateway.job_media import MediaVersion, find_media_kind
from videoqa.gateway.reference.operation import describe_byte_answers, document
from videoqa.gateway.reference.parameters import IfNoneMatch, JobId
from videoqa.telemetry import log_events

__all__ = ["router"]

log = logging.getLogger(__name__)

router = APIRouter(prefix="/v1/jobs", tags=["Jobs"])


@router.get("/{job_id}/inputs/{number}/media")
@document(
    "read_input",
    answers=describe_byte_answers("input"),
    errors=(
        "file_expired",
        "file_gone",
        "input_not_found",
        "media_not_served",
        "range_not_satisfiable",
        "storage_unavailable",
    ),
)
async def get_media(
    caller: Reader,
    job_id: JobId,
    number: Annotated[
        int, Path(ge=0, le=1000, description="Number of the input, from 0.", examples=[0])
    ],
    range_header: Annotated[
        str | None,
        Header(alias="range", description="One range of bytes.", examples=["bytes=0-1"]),
    ] = None,
    if_range: Annotated[
        str | None, Header(description="ETag for which `Range` holds.", examples=['"1f-8a"'])
    ] = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Returns the bytes of an input as they are now, all of them or one `Range`, so that a page can play it.

    Uploaded files are served; of `s3://` and `file://` inputs those below a URL of `VIDEOQA_GATEWAY_MEDIA`; others
    are `media_not_served`.
    """
    name, version, source = await _find(caller, job_id, number)
    tag = f'"{version.etag}"'
    headers = {
        "cache-control": "private, no-cache",
        "vary": "Authorization, Cookie",
        "content-disposition": "inline",
        # Nothing of a stranger's file runs, whatever a browser takes it for.
        "content-security-policy": "sandbox; default-src 'none'",
        "cross-origin-resource-policy": "same-origin",
    }
    asked = AskedBytes(range_header, if_range, if_none_match)
    return await answer_bytes(
        asked, tag, version.bytes, source.read, headers, find_media_kind(name)
    )


class _Upload:
    """The bytes of an uploaded file."""

    def __init__(self, caller: Caller, file_id: str) -> None:
        self._files = caller.resources.files
        self._tenant = caller.key.tenant
        self._file_id = file_id

    async def stat(self) -> tuple[str, MediaVersion]:
        self._record = await self._files.get(self._file_id, self._tenant)
        return self._record.filename, MediaVersion(self._record.bytes, self._record.id)

    def read(self, start: int, end: int) -> AsyncIterator[bytes]:
        return self._files.read(self._record, start, end)


class _Object:
    """The bytes of an input at the operator's own URLs."""

    def __init__(self, caller: Caller, url: str) -> None:
        self._run = caller.resources.files.run_store
        self._media = caller.resources.media
        self._url = url

    async def stat(self) -> tuple[str, MediaVersion]:
        with translate_storage_errors():
            try:
                self._version = await self._run(self._media.stat, self._url)
            except OutputDenied as error:
                log_events.INPUT_NOT_SHOWN.log(log, error=error.message)
                raise refuse_media() from error
        return self._url, self._version

    async def read(self, start: int, end: int) -> AsyncIterator[bytes]:
        with translate_storage_errors():
            source = self._media.read(self._url, self._version, start, end)
            try:
                while data := await self._run(next, source, b""):
                    yield data
            finally:
                with anyio.CancelScope(shield=True):
                    await self._run(source.close)


async def _find(
    caller: Caller, job_id: str, number: int
) -> tuple[str, MediaVersion, _Upload | _Object]:
    """Returns name and version of an input, and the source of its bytes; raises HttpError, LookupFailed."""
    resources = caller.resources
    # The stored request, since the one of a job has no query; it is the caller's tenant's, or is not found.
    ledger = resources.ledger.for_tenant(caller.key.tenant)
    request = await resources.run(ledger.request, job_id)
    if number >= len(request.inputs):
        raise HttpError(
            404,
            "input_not_found",
            f"got the input {number}, and job {job_id} has {len(request.inputs)}, numbered from 0",
            param="number",
        )
    url = request.inputs[number].url
    ids = resources.files.urls.find(url)
    if not ids and not resources.media.allows(url):
        raise refuse_media()
    source = _Upload(caller, ids[0]) if ids else _Object(caller, url)
    name, version = await source.stat()
    return name, version, source


def refuse_media() -> HttpError:
    """Returns the error of an input whose bytes the gateway does not pass on."""
    return HttpError(
        403,
        "media_not_served",
        "the gateway passes on uploaded files, and inputs below the URLs of VIDEOQA_GATEWAY_MEDIA; open the source "
        "itself, or have the operator add its bucket or folder there",
    )
