"""Sheets: one picture a job, with thumbnails of the frames that the model saw."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from videoqa.gateway.access.caller import Reader
from videoqa.gateway.http.etags import has_tag, make_tag
from videoqa.gateway.reference.operation import TEXT, Answer, Content, document
from videoqa.gateway.reference.parameters import TAG, IfNoneMatch, JobId

__all__ = ["router"]

router = APIRouter(prefix="/v1/jobs", tags=["Jobs"])

KEPT_S = 3600
"""Time for which a browser keeps a sheet, which never changes; shorter than the life of a revoked key's copies."""


@router.get("/{job_id}/sheet")
@document(
    "get_sheet",
    answers={
        200: Answer("The sheet.", Content(TEXT, "(bytes of a JPEG)", "image/jpeg"), headers=TAG),
        304: Answer("The caller has it already.", headers=TAG),
    },
    errors=("sheet_not_kept", "sheet_expired", "job_not_finished", "output_unavailable"),
)
async def get_sheet(
    caller: Reader,
    job_id: JobId,
    thumbnail: Annotated[
        bool,
        Query(
            description="A small picture of one frame in place of the sheet, of some 5 KB, for lists.",
            examples=[False],
        ),
    ] = False,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Returns the thumbnails of the frames that the model saw, as one JPEG; the result's `sheet` is its layout."""
    return answer_picture(await caller.client.sheet(job_id, thumbnail=thumbnail), if_none_match)


def answer_picture(data: bytes, if_none_match: str | None) -> Response:
    """Answers with a JPEG that never changes."""
    tag = make_tag(data)
    headers = {
        "etag": tag,
        "cache-control": f"private, max-age={KEPT_S}, immutable",
        "vary": "Authorization, Cookie",
        "x-content-type-options": "nosniff",
    }
    if has_tag(tag, if_none_match):
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type="image/jpeg")
