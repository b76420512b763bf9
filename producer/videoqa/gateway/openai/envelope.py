"""Errors in OpenAI's form, `{"error": {message, type, param, code}}`, with our codes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from videoqa.errors import VideoQAError
from videoqa.gateway.http.problems import find_code, find_message, find_status, make_error_headers
from videoqa.printable import printable

__all__ = ["describe_error", "make_openai_error", "speaks_openai"]

_PATHS = ("/v1/chat/", "/v1/files", "/v1/uploads", "/v1/batches")
_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    409: "conflict_error",
    429: "rate_limit_error",
}


def speaks_openai(path: str) -> bool:
    """Tells if a path is one of OpenAI's API, whose clients expect OpenAI's errors."""
    return path.startswith(_PATHS)


def describe_error(error: VideoQAError) -> dict[str, Any]:
    """Returns the body of an error, which is also that of an event in a stream."""
    status = find_status(error)
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {
        "error": {
            "message": printable(find_message(error)),
            "type": kind,
            "param": error.param,
            "code": find_code(error),
        }
    }


def make_openai_error(error: VideoQAError) -> Response:
    """Makes the response of an error."""
    return Response(
        json.dumps(describe_error(error), ensure_ascii=False),
        find_status(error),
        make_error_headers(error),
        media_type="application/json",
    )
