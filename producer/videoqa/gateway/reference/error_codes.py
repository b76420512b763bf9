"""Codes of the errors that the gateway itself answers with, besides those of `videoqa.errors`."""

from __future__ import annotations

from dataclasses import dataclass

from videoqa import errors
from videoqa.gateway.http.problems import find_status_of_kind

__all__ = ["CORE_CODES", "GATEWAY_CODES", "ErrorCode", "describe_code", "find_status_of"]


@dataclass(frozen=True)
class ErrorCode:
    """A code's row in the reference."""

    status: int
    meaning: str
    next_step: str


GATEWAY_CODES: dict[str, ErrorCode] = {
    "answer_changed": ErrorCode(
        500,
        "A chat's job was tried again after a part of its answer had been streamed, and answers otherwise now.",
        "Discard what came, and send the request again; with a `seed` answers repeat.",
    ),
    "batch_ended": ErrorCode(
        409, "A batch that is to be cancelled has ended.", "Read its output and error files."
    ),
    "batch_not_found": ErrorCode(
        404,
        "There is no such batch, or it is another tenant's, or it ended more than 30 days ago.",
        "`GET /v1/batches` lists yours.",
    ),
    "body_too_large": ErrorCode(
        413,
        "The body of the request is larger than `VIDEOQA_GATEWAY_MAX_BODY_BYTES`.",
        "Upload large files by `POST /v1/files`; send many jobs in several requests.",
    ),
    "file_expired": ErrorCode(
        410, "The file's lifetime is over.", "Upload it again; `expires_after` sets its lifetime."
    ),
    "file_gone": ErrorCode(
        410, "The bytes of the file are no longer in the gateway's store.", "Upload it again."
    ),
    "file_not_found": ErrorCode(
        404,
        "There is no such file, or it is another tenant's; a job that names one is refused with 400.",
        "See `GET /v1/files` for yours.",
    ),
    "file_quota_reached": ErrorCode(
        507,
        "The file does not fit into what its tenant, or all tenants together, may store "
        "(`VIDEOQA_GATEWAY_FILES_TENANT_BYTES`, `VIDEOQA_GATEWAY_FILES_BYTES`).",
        "Delete files, or wait until some expire.",
    ),
    "file_too_large": ErrorCode(
        413,
        "The file is larger than `VIDEOQA_MAX_SOURCE_BYTES`, so that workers would not read it.",
        "Cut or shrink the video.",
    ),
    "files_not_configured": ErrorCode(
        501,
        "The gateway stores no files.",
        "Set `VIDEOQA_GATEWAY_FILES` to a folder or to `s3://bucket/prefix/`.",
    ),
    "foreign_host": ErrorCode(
        421,
        "A gateway without keys was called by a host name that is not loopback's.",
        "Call it as `127.0.0.1` or `localhost`, or run a gateway with keys.",
    ),
    "foreign_origin": ErrorCode(
        403,
        "A web page of another origin made a change at a gateway without keys, or in a browser's session.",
        "Call with a key in `Authorization`; a gateway without keys reads `VIDEOQA_GATEWAY_CORS_ORIGINS`.",
    ),
    "stale_form": ErrorCode(
        403,
        "A form of the dashboard lacks the token of the reader's session.",
        "Open the page again, and repeat; programs send a key in `Authorization`, and need no token.",
    ),
    "gateway_stopping": ErrorCode(
        503, "This gateway ends; the job goes on.", "Send the request again; another gateway has it."
    ),
    "head_too_large": ErrorCode(
        431,
        "The request has more than 1,000 headers, or more than 64 kB of path and headers.",
        "Send large values in the body.",
    ),
    "http_error": ErrorCode(
        400, "HTTP itself refuses the request in a way that has no code of its own.", "See `detail`."
    ),
    "input_not_allowed": ErrorCode(
        403,
        "An input lies outside of the hosts and buckets that the API key may have read.",
        "Use a URL below one that the message lists, or ask an administrator for another key.",
    ),
    "input_not_found": ErrorCode(
        404, "The job has no input of this number.", "Count its `inputs` from 0."
    ),
    "media_not_served": ErrorCode(
        403,
        "The bytes of this input are not passed on: it is `http(s)`, or outside of `VIDEOQA_GATEWAY_MEDIA`.",
        "Open the source itself, or have the operator add its bucket or folder to `VIDEOQA_GATEWAY_MEDIA`.",
    ),
    "key_changed": ErrorCode(
        409,
        "The API key was made or changed meanwhile, as by the same form before.",
        "See `GET /v1/keys`, and repeat the change if it is still wanted.",
    ),
    "key_not_found": ErrorCode(404, "No API key has this id.", "See `GET /v1/keys`."),
    "method_not_allowed": ErrorCode(
        405, "The route has no such method.", "Use one of those in the header `Allow`."
    ),
    "malformed_http": ErrorCode(
        400,
        "The request is no well-formed HTTP/1.1, or its head is larger than 64 kB.",
        "Use an HTTP library; send large values in the body.",
    ),
    "model_not_found": ErrorCode(
        404, "No worker serves the model of a chat.", "Name one that `GET /v1/models` lists."
    ),
    "part_not_found": ErrorCode(
        400, "An upload has no part with this id.", "Send the part, or take its id out of `part_ids`."
    ),
    "part_too_large": ErrorCode(
        413, "A part of an upload has more than 64 MiB.", "Send several shorter ones."
    ),
    "range_not_satisfiable": ErrorCode(
        416, "The `Range` has no byte of the file.", "Ask for bytes below the size in `Content-Range`."
    ),
    "request_too_slow": ErrorCode(
        408,
        "The head or the body of the request took too long.",
        "Send it again, faster; a head within 20 s, a body with at least 10 kB a second.",
    ),
    "stream_limit": ErrorCode(
        429,
        "The API key, or the gateway, has as many streams of events open as it may.",
        "End others, follow many jobs by one stream (`POST /v1/jobs:follow`), or poll with `wait`.",
    ),
    "too_many_connections": ErrorCode(
        503,
        "The gateway has as many connections as it takes.",
        "Try again after `Retry-After`; start more gateways.",
    ),
    "route_not_found": ErrorCode(404, "There is no such route.", "See the list at `/docs`."),
    "storage_full": ErrorCode(
        507, "The gateway's store of files has no room.", "Tell its operator, or delete files."
    ),
    "storage_unavailable": ErrorCode(
        503, "The gateway's store of files does not answer; its log says why.", "Send the request again later."
    ),
    "unsupported_media_type": ErrorCode(
        415,
        "The body is of another media type than the route reads.",
        "Send it with `Content-Type: application/json`.",
    ),
    "upload_busy": ErrorCode(
        409, "Another call completes or cancels the upload.", "Send the request again."
    ),
    "upload_ended": ErrorCode(
        400, "The upload is completed or cancelled.", "Begin another one."
    ),
    "upload_expired": ErrorCode(
        410, "The upload was not completed within an hour.", "Begin another one."
    ),
    "upload_not_found": ErrorCode(
        404, "There is no such upload, or it is another tenant's.", "Begin one by `POST /v1/uploads`."
    ),
    "upload_stalled": ErrorCode(
        408, "No bytes of an upload came for a minute.", "Send the file again."
    ),
    "uploads_busy": ErrorCode(
        503,
        "32 files, or 8 of one tenant, are being uploaded through this gateway.",
        "Send the file again after `Retry-After`."
    ),
    "wrong_login": ErrorCode(
        401,
        "A link that logs a browser in, or its session, is unknown, used or has ended.",
        "Print another link: `videoqa keys link ID`.",
    ),
    "wrong_purpose": ErrorCode(
        400,
        "A job names a file that was not uploaded as `user_data` or `vision`.",
        "Upload the video with one of these purposes.",
    ),
}  # fmt: skip


CORE_CODES: dict[str, type[errors.VideoQAError]] = {
    errors.RedisUnavailable.code: errors.RedisUnavailable
} | errors.REGISTRY
"""Classes of the codes of `videoqa.errors`."""


def find_status_of(code: str) -> int:
    """Returns the HTTP status of a code; raises KeyError if there is no such code."""
    if code in GATEWAY_CODES:
        return GATEWAY_CODES[code].status
    return find_status_of_kind(CORE_CODES[code])


def describe_code(code: str) -> str:
    """Returns the meaning of a code."""
    if code in GATEWAY_CODES:
        return GATEWAY_CODES[code].meaning
    return (CORE_CODES[code].__doc__ or "").strip().partition("\n")[0]
