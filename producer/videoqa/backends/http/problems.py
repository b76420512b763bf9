"""Problems of a gateway, turned back into the errors that a client of Redis raises."""

from __future__ import annotations

import json
from typing import Any

from videoqa import errors
from videoqa.contract import Failure, parse_stored
from videoqa.printable import printable

__all__ = ["check_problem", "make_error", "read_problem"]

_MOST_SHOWN = 300
_OWN_ARGUMENTS = (errors.SubmittedInPart, errors.ClientClosed, errors.GatewayError)
"""Errors that a gateway's code does not become: a client makes them itself."""


def _collect_kinds() -> dict[str, type[errors.VideoQAError]]:
    """Returns the class of each code; of several classes with one code, that which has no subclass."""
    found: dict[str, type[errors.VideoQAError]] = {}
    pending: list[type[errors.VideoQAError]] = [errors.VideoQAError]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        if not issubclass(kind, _OWN_ARGUMENTS) and kind.__module__ == errors.__name__:
            found.setdefault(kind.code, kind)
    return found | {
        code: kind for code, kind in errors.REGISTRY.items() if not issubclass(kind, _OWN_ARGUMENTS)
    }


_KINDS = _collect_kinds()


def read_problem(body: bytes) -> dict[str, Any]:
    """Returns the problem document of an answer; empty if it is none."""
    try:
        return check_problem(json.loads(body))
    except (ValueError, RecursionError):
        return {}


def check_problem(found: Any) -> dict[str, Any]:
    """Returns a problem document, or the error of a row, in the form of one; empty if it is neither."""
    if isinstance(found, dict) and "detail" not in found:
        found = found | {"detail": found.get("message")}
    is_problem = isinstance(found, dict) and all(
        isinstance(found.get(name), str) for name in ("code", "detail")
    )
    return found if is_problem else {}


def make_error(
    problem: dict[str, Any], *, status: int, where: str, body: bytes = b""
) -> errors.VideoQAError:
    """Makes the error of an answer with this status.

    Arguments:
        problem: the gateway's document; empty: what answers is none, or a proxy before it.
        where: the gateway, for the message.
        body: what was answered in place of a problem.
    """
    if not problem:
        text = printable(" ".join(body[:2000].decode("utf-8", "replace").split()))
        message = f"{where} answered with HTTP {status}" + (
            f": {text[:_MOST_SHOWN]}" if text else ""
        )
        if status in (408, 429, 502, 503, 504):
            return errors.GatewayUnavailable(f"{message}; try again later")
        return errors.GatewayError(
            f"{message}; check that VIDEOQA_URL is the address of a videoqa gateway"
        )
    code, detail = problem["code"], problem["detail"]
    param = problem.get("param")
    param = param if isinstance(param, str) else None
    kind = _KINDS.get(code)
    if kind is None:
        return errors.GatewayError(
            detail, code=code[:100], retryable=problem.get("retryable") is True, param=param
        )
    if issubclass(kind, errors.JobFailed):
        return kind(detail, failure=_parse_failure(problem.get("failure")), param=param)
    if kind is errors.WrongKey:
        detail += "; set VIDEOQA_API_KEY or `api_key`, or use `videoqa login`"
    return kind(detail, param=param)


def _parse_failure(found: Any) -> Failure | None:
    try:
        return parse_stored(Failure, json.dumps(found)) if found is not None else None
    except errors.InvalidRequest:
        return None
