"""Files: upload, list, read, delete, in the form of OpenAI's API, and for jobs of both."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Literal, cast, get_args

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from videoqa.errors import InvalidRequest
from videoqa.gateway.access.caller import Reader, Submitter
from videoqa.gateway.files.form import FileBegin, FormParser
from videoqa.gateway.files.index import FileRecord, Purpose
from videoqa.gateway.files.names import check_filename, show_filename
from videoqa.gateway.files.uploads import PartWriter
from videoqa.gateway.files.writer import FORM_BYTES, FileWriter
from videoqa.gateway.http.bodies import find_media_type
from videoqa.gateway.http.byte_ranges import AskedBytes, answer_bytes
from videoqa.gateway.http.middleware import set_body_limit
from videoqa.gateway.http.problems import HttpError
from videoqa.gateway.openai.pages import make_page
from videoqa.gateway.reference import examples
from videoqa.gateway.reference.operation import (
    Answer,
    Content,
    describe_byte_answers,
    document,
)
from videoqa.gateway.reference.parameters import EXAMPLE_FILE, FileId, IfNoneMatch
from videoqa.gateway.routes.answers import FileBody, FileDeleted, FileList, FileObject

__all__ = [
    "WRITING_ERRORS",
    "check_purpose",
    "describe_file",
    "read_body",
    "read_ttl",
    "receive_form",
    "router",
]

router = APIRouter(prefix="/v1/files", tags=["Files"])

UploadPurpose = Literal["batch", "vision", "user_data"]
_PURPOSES = get_args(UploadPurpose)
_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"
_LEAST_TTL_S, _MOST_TTL_S = 3600, 2_592_000
_SILENCE_S = 60.0
"""Time without a byte after which an upload is ended."""
WRITING_ERRORS = (
    "file_quota_reached",
    "file_too_large",
    "files_not_configured",
    "storage_full",
    "storage_unavailable",
    "upload_stalled",
    "uploads_busy",
)
"""Codes of what keeps a gateway from storing bytes."""
_BYTES = {"type": "string", "contentMediaType": "application/octet-stream"}


def describe_file(record: FileRecord) -> dict[str, Any]:
    """Returns a file as JSON, as OpenAI's API has it."""
    return {
        "id": record.id,
        "object": "file",
        "bytes": record.bytes,
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "filename": record.filename,
        "purpose": record.purpose,
        "status": "processed",
        "status_details": None,
    }


@router.post("")
@document(
    "upload_file",
    body=(
        Content(FileBody, examples.FILE_SENT, "multipart/form-data"),
        Content(_BYTES, "(the bytes)", "application/octet-stream"),
    ),
    answers={200: Answer("The file.", Content(FileObject, examples.FILE))},
    errors=WRITING_ERRORS,
)
async def upload(
    request: Request,
    caller: Submitter,
    filename: Annotated[
        str | None,
        Query(description="Name of a file whose bytes are the body.", examples=["parade.mp4"]),
    ] = None,
    purpose: Annotated[
        str | None,
        Query(
            description="Purpose of a file whose bytes are the body; without one `user_data`.",
            examples=["user_data"],
        ),
    ] = None,
) -> Response:
    """Stores a file: a form with `file`, `purpose` and `expires_after`, or the bytes alone with `?filename=`.

    The bytes pass through as they come. The key and the quotas are checked before the first one is read.
    """
    kind = find_media_type(request)
    is_form = kind == "multipart/form-data"
    is_raw = kind.startswith(("video/", "image/")) or kind == "application/octet-stream"
    if not is_form and not is_raw:
        raise HttpError(
            415,
            "unsupported_media_type",
            f"got a body of type {kind!r:.100}, expected multipart/form-data; or the bytes of the file with "
            "?filename=... and one of video/*, image/*, application/octet-stream",
        )
    length = request.headers.get("content-length")
    set_body_limit(request.scope, caller.resources.settings.max_source_bytes + FORM_BYTES)
    writing = caller.resources.files.writing(
        "upload",
        tenant=caller.key.tenant,
        length=None if length is None else int(length),
        most_bytes=caller.key.max_file_bytes,
    )
    sending = caller.resources.files.sending(caller.key.tenant)
    if is_raw:
        name = check_filename("upload" if filename is None else filename, "filename")
        wanted = check_purpose("user_data" if purpose is None else purpose)
        with sending:
            async with writing as writer:
                writer.name(name)
                async for data in read_body(request):
                    await writer.write(data)
                record = await writer.finish(wanted)
    else:
        form = FormParser(
            request.headers["content-type"],
            file_field="file",
            fields=("purpose", _ANCHOR, _SECONDS),
        )
        with sending:
            async with writing as writer:
                await receive_form(request, form, writer)
                record = await writer.finish(
                    check_purpose(form.fields.get("purpose")), ttl_s=read_ttl(form.fields)
                )
    return JSONResponse(describe_file(record))


async def receive_form(request: Request, form: FormParser, writer: FileWriter | PartWriter) -> None:
    """Writes the file of a form; raises InvalidRequest for a form that is malformed or has no file."""
    async for data in read_body(request):
        for found in form.feed(data):
            if not isinstance(found, FileBegin):
                await writer.write(found)
                continue
            if isinstance(writer, FileWriter):
                writer.name(found.filename)
            if "purpose" in form.fields:  # else it comes behind the file
                check_purpose(form.fields["purpose"])
    form.finish()


async def read_body(request: Request) -> AsyncIterator[bytes]:
    """Yields the body as it comes; raises HttpError if nothing comes for a minute."""
    async with aclosing(cast(Any, request.stream())) as stream:
        while True:
            try:
                async with asyncio.timeout(_SILENCE_S):
                    data = await anext(stream, None)
            except TimeoutError as error:
                raise HttpError(
                    408,
                    "upload_stalled",
                    f"got no byte of the body for {_SILENCE_S:g} s; send it again",
                    headers={"connection": "close"},
                ) from error
            if data is None:
                return
            if data:
                yield data


def check_purpose(purpose: object) -> Purpose:
    """Returns the purpose of an upload; raises InvalidRequest."""
    if purpose not in _PURPOSES:
        raise InvalidRequest(
            f"purpose: got {purpose!r:.100}, expected one of {', '.join(_PURPOSES)}",
            param="purpose",
        )
    return cast(Purpose, purpose)


def read_ttl(fields: Mapping[str, object]) -> float | None:
    """Returns the time to live of the fields `expires_after[...]`; None without them. Raises InvalidRequest."""
    if _ANCHOR not in fields and _SECONDS not in fields:
        return None
    anchor, seconds = fields.get(_ANCHOR), str(fields.get(_SECONDS))
    if anchor != "created_at":
        raise InvalidRequest(
            f"{_ANCHOR}: got {anchor!r:.100}, expected created_at", param="expires_after.anchor"
        )
    if not re.fullmatch("[0-9]{1,9}", seconds) or not _LEAST_TTL_S <= int(seconds) <= _MOST_TTL_S:
        raise InvalidRequest(
            f"{_SECONDS}: got {seconds!r:.100}, expected {_LEAST_TTL_S} to {_MOST_TTL_S}",
            param="expires_after.seconds",
        )
    return float(seconds)


@router.get("")
@document("list_files", answers={200: Answer("A page.", Content(FileList, examples.FILES))})
async def list_files(
    caller: Reader,
    purpose: Annotated[
        Purpose | None, Query(description="Only files of this purpose.", examples=["user_data"])
    ] = None,
    after: Annotated[
        str | None,
        Query(description="Last id of the page before.", examples=[EXAMPLE_FILE]),
    ] = None,
    limit: Annotated[
        int, Query(ge=1, le=10_000, description="Most files of a page.", examples=[100])
    ] = 10_000,
    order: Annotated[
        Literal["asc", "desc"],
        Query(description="By creation: `desc` is newest first.", examples=["desc"]),
    ] = "desc",
) -> Response:
    """Lists files, newest first; `after` is the last id of the page before, and may have been deleted since."""
    files = caller.resources.files
    try:
        found, has_more = await files.run(
            files.index.list_ready,
            caller.key.tenant,
            purpose=purpose,
            after=after,
            limit=limit,
            newest_first=order == "desc",
        )
    except ValueError as error:
        raise InvalidRequest(
            f"after: got {after!r:.100}, expected the id of a file", param="after"
        ) from error
    return JSONResponse(make_page([describe_file(record) for record in found], has_more=has_more))


@router.get("/{file_id}")
@document("get_file", answers={200: Answer("The file.", Content(FileObject, examples.FILE))})
async def get_file(caller: Reader, file_id: FileId) -> Response:
    """Returns a file without its bytes."""
    return JSONResponse(describe_file(await caller.resources.files.get(file_id, caller.key.tenant)))


@router.get("/{file_id}/content")
@document(
    "read_file",
    answers=describe_byte_answers("file"),
    errors=(
        "file_gone",
        "files_not_configured",
        "range_not_satisfiable",
        "storage_unavailable",
    ),
)
async def get_content(
    caller: Reader,
    file_id: FileId,
    range_header: Annotated[
        str | None,
        Header(alias="range", description="One range of bytes.", examples=["bytes=0-1"]),
    ] = None,
    if_range: Annotated[
        str | None,
        Header(description="ETag for which `Range` holds.", examples=[f'"{EXAMPLE_FILE}"']),
    ] = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Returns the bytes of a file, all of them or one `Range`; several at once are answered with all."""
    record = await caller.resources.files.get(file_id, caller.key.tenant)
    tag = f'"{record.id}"'  # the bytes of an id never change
    headers = {
        "content-disposition": show_filename(record.filename),
        "content-security-policy": "sandbox",
    }
    asked = AskedBytes(range_header, if_range, if_none_match)
    read = partial(caller.resources.files.read, record)
    return await answer_bytes(asked, tag, record.bytes, read, headers)


@router.delete("/{file_id}")
@document(
    "delete_file",
    answers={200: Answer("It is deleted.", Content(FileDeleted, examples.FILE_DELETED))},
    errors=("files_not_configured", "storage_unavailable"),
)
async def delete_file(caller: Submitter, file_id: FileId) -> Response:
    """Deletes a file; jobs and batches that use it go on, and its bytes leave with the last of them."""
    await caller.resources.files.delete(file_id, caller.key.tenant)
    return JSONResponse({"id": file_id, "object": "file", "deleted": True})
