"""Problems: every error as the JSON document of RFC 9457, with our stable code.

`type` leads to the code's entry in the reference, `title` is the meaning of the code, `detail` the error's message;
`code`, `param` and `retryable` are ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from math import ceil
from typing import Any

from starlette.responses import Response

from videoqa import errors
from videoqa.gateway.access.keys import KeyChanged, KeyNotFound, WrongKey
from videoqa.gateway.access.sessions import WrongLogin
from videoqa.printable import printable

__all__ = [
    "GatewayStopping",
    "HttpError",
    "describe_problem",
    "describe_row_error",
    "find_code",
    "find_message",
    "find_status",
    "find_status_of_kind",
    "make_error_headers",
    "make_problem",
]

REFERENCE = "https://github.com/videoqa/videoqa/blob/main/docs/reference/errors.md"

_STATUS: tuple[tuple[type[errors.VideoQAError], int], ...] = (
    (errors.IdempotencyConflict, 422),
    (errors.RequestError, 400),
    (errors.QueueFull, 429),
    (errors.RateLimited, 429),
    (errors.JobNotFound, 404),
    (errors.DeliveryNotFound, 404),
    (errors.RunNotFound, 404),
    (errors.BulkActionNotFound, 404),
    (errors.CountChanged, 409),
    (errors.JobExpired, 410),
    (errors.SheetNotKept, 404),
    (errors.SheetExpired, 410),
    (errors.JobNotFinished, 409),
    (errors.NotRetryable, 409),
    (errors.JobFailed, 409),
    (errors.RecordUnreadable, 500),
    (errors.OperatorOnly, 403),
    (errors.RedisUnavailable, 503),
    (errors.WaitTimeout, 504),
    (errors.OutputNotFound, 410),
    (errors.OutputError, 502),
    (errors.ServiceError, 500),
    (WrongKey, 401),
    (KeyNotFound, 404),
    (KeyChanged, 409),
    (WrongLogin, 401),
)
"""HTTP status of an error; the first class that fits."""

_MESSAGES: tuple[tuple[type[errors.VideoQAError], str], ...] = (
    (errors.JobNotFound, "no job has this id; check the id, and that the API key is one of the job's tenant"),
    (
        errors.RecordUnreadable,
        "the record of this job cannot be read by this gateway, whose log says why; tell its operator the request's id",
    ),
    (
        errors.NotReplicated,
        "this is recorded, but too few replicas have acknowledged it in time; send the request again, a submit with "
        "the same Idempotency-Key",
    ),
    (
        errors.RedisUnavailable,
        "the gateway's Redis does not answer, or takes nothing now; send the request again later",
    ),
    (
        errors.ConfigurationError,
        "the gateway is set up wrongly, and its log says how; tell its operator the request's id",
    ),
)  # fmt: skip
"""Messages for callers in place of those for operators, which name addresses, keys and settings of the server."""


class HttpError(errors.VideoQAError):
    """A request that HTTP itself refuses, before anything of videoqa sees it."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Arguments:
            members: what else the problem's document has.
        """
        super().__init__(message, param=param)
        self.status = status
        self.http_code = code
        self.headers = dict(headers or {})
        self.members = dict(members or {})


class GatewayStopping(HttpError):
    """This gateway ends; the job goes on, and another gateway answers a retry."""

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(
            503,
            "gateway_stopping",
            "this gateway ends, and the job goes on; send the request again",
            headers=headers,
        )


def find_status(error: errors.VideoQAError) -> int:
    """Returns the HTTP status of an error."""
    if isinstance(error, HttpError):
        return error.status
    return find_status_of_kind(type(error))


def find_status_of_kind(error: type[errors.VideoQAError]) -> int:
    """Returns the HTTP status of errors of this class."""
    return next((status for kind, status in _STATUS if issubclass(error, kind)), 500)


def find_code(error: errors.VideoQAError) -> str:
    """Returns the stable code of an error."""
    return error.http_code if isinstance(error, HttpError) else error.code


def find_message(error: errors.VideoQAError) -> str:
    """Returns the message of an error for callers, who do not run the fleet."""
    for kind, message in _MESSAGES:
        if isinstance(error, kind):
            return message
    return error.message


def describe_row_error(error: errors.VideoQAError) -> dict[str, Any]:
    """Returns the error of one row of a larger answer."""
    return {"code": find_code(error), "message": find_message(error), "param": error.param}


def make_error_headers(
    error: errors.VideoQAError, *, retry_after_s: float | None = None
) -> dict[str, str]:
    """Returns the headers of an error's response."""
    status = find_status(error)
    headers = dict(error.headers) if isinstance(error, HttpError) else {}
    if status == 401:
        headers["www-authenticate"] = 'Bearer realm="videoqa"'
    if isinstance(error, errors.RateLimited):
        retry_after_s = error.retry_after_s
    if retry_after_s is None and status in (429, 503) and "retry-after" not in headers:
        retry_after_s = 1.0
    if retry_after_s is not None:
        headers["retry-after"] = str(max(1, ceil(retry_after_s)))
    return headers


def make_problem(
    error: errors.VideoQAError, *, request_id: str, retry_after_s: float | None = None
) -> Response:
    """Makes the response of an error."""
    return Response(
        json.dumps(describe_problem(error, request_id=request_id), ensure_ascii=False),
        find_status(error),
        make_error_headers(error, retry_after_s=retry_after_s),
        media_type="application/problem+json",
    )


def describe_problem(error: errors.VideoQAError, *, request_id: str) -> dict[str, Any]:
    """Returns the document of an error."""
    status = find_status(error)
    code = find_code(error)
    meaning = (type(error).__doc__ or "").strip().partition("\n")[0]
    body: dict[str, Any] = {
        "type": f"{REFERENCE}#{code}",
        "title": HTTPStatus(status).phrase if isinstance(error, HttpError) else meaning,
        "status": status,
        "detail": printable(find_message(error)),
        "code": code,
        "param": error.param,
        "retryable": error.retryable or status in (429, 503),
        "request_id": request_id,
    }
    if isinstance(error, HttpError):
        body |= error.members
    if isinstance(error, errors.RateLimited):
        body["limit"] = error.limit
    failure = getattr(error, "failure", None)
    if failure is not None:
        body["failure"] = failure.model_dump(mode="json")
    return body
