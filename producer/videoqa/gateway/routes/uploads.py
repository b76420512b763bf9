"""Uploads: large files in parts, in the form of OpenAI's API."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from videoqa.errors import InvalidRequest
from videoqa.gateway.access.caller import Reader, Submitter
from videoqa.gateway.files.form import FormParser
from videoqa.gateway.files.index import FileRecord
from videoqa.gateway.files.names import check_filename
from videoqa.gateway.files.uploads import MOST_PART_BYTES, Upload, UploadPart
from videoqa.gateway.files.writer import FORM_BYTES
from videoqa.gateway.http.bodies import find_media_type, read_object
from videoqa.gateway.http.middleware import set_body_limit
from videoqa.gateway.http.problems import HttpError
from videoqa.gateway.reference import examples
from videoqa.gateway.reference.operation import Answer, Content, document
from videoqa.gateway.reference.parameters import UploadId
from videoqa.gateway.routes.answers import (
    UploadBody,
    UploadEnd,
    UploadObject,
    UploadPartBody,
    UploadPartObject,
)
from videoqa.gateway.routes.files import (
    WRITING_ERRORS,
    check_purpose,
    describe_file,
    read_ttl,
    receive_form,
)

__all__ = ["router"]

router = APIRouter(prefix="/v1/uploads", tags=["Files"])

_ENDED = ("upload_ended", "upload_expired")


def describe_upload(
    upload: Upload, file: FileRecord | None = None, **changes: Any
) -> dict[str, Any]:
    """Returns an upload as JSON, as OpenAI's API has it, and with its parts."""
    info = upload.info
    return {
        "id": info.id,
        "object": "upload",
        "bytes": info.file.bytes,
        "created_at": info.created_at,
        "expires_at": info.expires_at,
        "filename": info.file.filename,
        "purpose": info.file.purpose,
        "status": upload.status,
        "file": None if file is None else describe_file(file),
        "parts": [describe_part(upload, part) for part in upload.parts],
    } | changes


def describe_part(upload: Upload, part: UploadPart) -> dict[str, Any]:
    """Returns a part as JSON, with its length, which OpenAI's API does not have."""
    return {
        "id": part.id,
        "object": "upload.part",
        "created_at": part.created_at,
        "upload_id": upload.info.id,
        "bytes": part.bytes,
    }


@router.post("")
@document(
    "create_upload",
    body=Content(UploadBody, examples.UPLOAD_ASKED),
    answers={200: Answer("The upload.", Content(UploadObject, examples.UPLOAD))},
    errors=WRITING_ERRORS,
)
async def create_upload(request: Request, caller: Submitter) -> Response:
    """Begins an upload in parts, which is to be completed within an hour.

    Its whole length is charged to the tenant now, so that no part is refused for a quota.
    """
    body = await read_object(request)
    _refuse_others(body, ("bytes", "filename", "mime_type", "purpose", "expires_after"))
    length = body.get("bytes")
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        raise InvalidRequest(
            f"bytes: got {length!r:.50}, expected the file's length", param="bytes"
        )
    filename = body.get("filename")
    if not isinstance(filename, str):
        raise InvalidRequest(f"filename: got {filename!r:.50}, expected a name", param="filename")
    mime_type = body.get("mime_type", "")
    if not isinstance(mime_type, str) or len(mime_type) > 200:
        raise InvalidRequest("mime_type: expected a short text", param="mime_type")
    after = body.get("expires_after")
    if after is not None and (not isinstance(after, dict) or not after):
        raise InvalidRequest(
            'expires_after: expected {"anchor": "created_at", "seconds": 3600}',
            param="expires_after",
        )
    _refuse_others(after or {}, ("anchor", "seconds"), "expires_after.")
    upload = await caller.resources.uploads.create(
        check_filename(filename, "filename"),
        tenant=caller.key.tenant,
        length=length,
        purpose=check_purpose(body.get("purpose")),
        most_bytes=caller.key.max_file_bytes,
        ttl_s=read_ttl({f"expires_after[{name}]": value for name, value in (after or {}).items()}),
    )
    return JSONResponse(describe_upload(upload))


@router.get("/{upload_id}")
@document(
    "get_upload", answers={200: Answer("The upload.", Content(UploadObject, examples.UPLOAD))}
)
async def get_upload(caller: Reader, upload_id: UploadId) -> Response:
    """Returns an upload with the parts that have come, after which a caller that was cut off goes on."""
    upload = await caller.resources.uploads.get(upload_id, caller.key.tenant)
    return JSONResponse(describe_upload(upload))


@router.post("/{upload_id}/parts")
@document(
    "add_upload_part",
    body=Content(UploadPartBody, {"data": "@clip.mp4"}, "multipart/form-data"),
    answers={200: Answer("The part.", Content(UploadPartObject, examples.UPLOAD_PART))},
    errors=("part_too_large", *_ENDED, *WRITING_ERRORS),
)
async def add_part(request: Request, caller: Submitter, upload_id: UploadId) -> Response:
    """Stores a part of up to 64 MB, the form's `data`; parts may come at the same time, and in any order."""
    uploads = caller.resources.uploads
    kind = find_media_type(request)
    upload = await uploads.get(upload_id, caller.key.tenant)
    if kind != "multipart/form-data":
        raise HttpError(
            415,
            "unsupported_media_type",
            f"got a body of type {kind!r:.100}, expected multipart/form-data with the part as `data`",
        )
    set_body_limit(request.scope, MOST_PART_BYTES + FORM_BYTES)
    form = FormParser(request.headers["content-type"], file_field="data")
    async with uploads.writing_part(upload) as writer:
        await receive_form(request, form, writer)
        part = await writer.finish()
    return JSONResponse(describe_part(upload, part))


@router.post("/{upload_id}/complete")
@document(
    "complete_upload",
    body=Content(UploadEnd, examples.UPLOAD_END),
    answers={200: Answer("The upload with its file.", Content(UploadObject, examples.UPLOADED))},
    errors=(
        "file_expired",
        "file_gone",
        "files_not_configured",
        "part_not_found",
        "storage_full",
        "storage_unavailable",
        "upload_busy",
        *_ENDED,
    ),
)
async def complete_upload(request: Request, caller: Submitter, upload_id: UploadId) -> Response:
    """Makes a file of the parts, in the order of `part_ids`; the bytes must be as many as were announced.

    A call that is repeated since its answer was lost has the same answer.
    """
    upload = await caller.resources.uploads.get(upload_id, caller.key.tenant)
    body = await read_object(request)
    _refuse_others(body, ("part_ids", "md5"))
    part_ids, md5 = body.get("part_ids"), body.get("md5")
    if not isinstance(part_ids, list) or not all(isinstance(each, str) for each in part_ids):
        raise InvalidRequest("part_ids: expected the ids of all parts, in order", param="part_ids")
    if md5 is not None and not isinstance(md5, str):
        raise InvalidRequest("md5: expected 32 hexadecimal digits", param="md5")
    file = await caller.resources.uploads.complete(upload, part_ids, md5)
    return JSONResponse(describe_upload(upload, file, status="completed"))


@router.post("/{upload_id}/cancel")
@document(
    "cancel_upload",
    answers={200: Answer("The upload.", Content(UploadObject, examples.UPLOAD_CANCELLED))},
    errors=("files_not_configured", "storage_unavailable", "upload_busy", *_ENDED),
)
async def cancel_upload(caller: Submitter, upload_id: UploadId) -> Response:
    """Ends an upload without a file, and deletes its parts."""
    upload = await caller.resources.uploads.get(upload_id, caller.key.tenant)
    await caller.resources.uploads.cancel(upload)
    return JSONResponse(describe_upload(upload, status="cancelled"))


def _refuse_others(body: dict[str, Any], known: tuple[str, ...], where: str = "") -> None:
    for name in body:
        if name not in known:
            raise InvalidRequest(
                f"{where}{name:.100}: is not known; expected some of {', '.join(known)}",
                param=f"{where}{name:.100}",
            )
