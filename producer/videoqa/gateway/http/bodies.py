"""JSON bodies, read strictly: UTF-8, one object, no NaN, and no name twice."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
from anyio import CapacityLimiter
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from videoqa.contract import refuse_mistake
from videoqa.errors import InvalidRequest
from videoqa.gateway.http.problems import HttpError
from videoqa.printable import printable

__all__ = [
    "MOST_VALUES",
    "check_count",
    "find_media_type",
    "parse_model",
    "parse_object",
    "read_object",
    "read_parsed",
]

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

_HALF = re.compile("[\ud800-\udfff]")
_HALF_SPELLED = re.compile(r"\\u[dD][89a-fA-F]")
MOST_DIGITS = 1000
"""Digits of an integer; Python's own time to read one is quadratic."""
MOST_VALUES = 20_000
"""Values of the request of one job or chat, which has some hundreds, and of the end of an upload, with 10,000 parts;
each costs time wherever it is checked."""
LEAST_THREAD_BYTES = 50_000
"""Size from which a body is parsed in a thread."""
_PARSERS = CapacityLimiter(2)
"""Bodies that are parsed in threads at a time, since a parsed one is many times as large as its text."""


async def read_object(request: Request, *, most_values: int = MOST_VALUES) -> dict[str, Any]:
    """Returns the JSON object of the body.

    Raises:
        HttpError: the body is of another media type, or of none (415).
        InvalidRequest: it is no JSON object.
    """
    return await read_parsed(request, lambda found: found, most_values=most_values)


async def read_parsed(
    request: Request, parse: Callable[[dict[str, Any]], T], *, most_values: int = MOST_VALUES
) -> T:
    """Returns what `parse` makes of the JSON object of the body; a large one is read in a thread.

    Raises:
        HttpError, InvalidRequest: see `read_object`, and what `parse` raises.
    """
    check_json(request)
    body = await request.body()
    if len(body) < LEAST_THREAD_BYTES:
        return parse(parse_object(body, most_values))
    return await anyio.to_thread.run_sync(
        lambda: parse(parse_object(body, most_values)), limiter=_PARSERS
    )


def parse_model(kind: type[M], body: object) -> M:
    """Returns the model that a body is; raises InvalidRequest."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise refuse_mistake(error.errors(include_url=False)[0]) from error


def find_media_type(request: Request) -> str:
    """Returns the media type of the body in lower case, without parameters; empty: the caller names none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def check_json(request: Request) -> None:
    """Raises HttpError for a body of another media type than JSON, or of none."""
    # A body without a type is refused, too: a page of another site may send one without asking first.
    kind = find_media_type(request)
    if kind != "application/json" and not kind.endswith("+json"):
        raise HttpError(
            415,
            "unsupported_media_type",
            f"got a body of type {kind!r:.100}, expected application/json",
        )


def parse_object(body: bytes, most_values: int = MOST_VALUES) -> dict[str, Any]:
    """Returns the JSON object that these bytes are; raises InvalidRequest."""
    try:
        text = body.decode("utf-8")
        found = json.loads(
            text,
            parse_constant=_refuse,
            parse_int=_read_int,
            object_pairs_hook=_Objects(most_values).make,
        )
        check_count(found, most_values)
        if _HALF_SPELLED.search(text):
            _check_text(found)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8: byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is no JSON: {error!s:.200}") from error
    if not isinstance(found, dict):
        raise InvalidRequest("got JSON of another kind, expected an object: {...}")
    return found


_Place = tuple["_Place | None", object]
"""A name or a number of a value, behind the place of the object or list that has it."""


def _check_text(body: Any) -> None:
    """Refuses half of a surrogate pair, which JSON can spell and UTF-8 cannot; raises InvalidRequest."""
    left: list[tuple[_Place | None, Any]] = [(None, [body])]
    while left:
        place, parent = left.pop()
        is_object = isinstance(parent, dict)
        for name, value in parent.items() if is_object else enumerate(parent):
            if is_object and _HALF.search(str(name)):
                raise _refuse_half(place)
            if isinstance(value, str):
                if _HALF.search(value):
                    raise _refuse_half((place, name))
            elif isinstance(value, dict | list):
                left.append(((place, name), value))


def _refuse_half(place: _Place | None) -> InvalidRequest:
    """Makes the error of a text; its place is spelled now, since that of each value would take much room."""
    names: list[str] = []
    while place is not None:
        place, name = place
        names.append(str(name)[:300])
    where = printable(".".join(names[-2::-1]))[:300]
    return InvalidRequest(
        f"{where or 'the body'}: got one half of a surrogate pair, such as \\ud800, which is no character",
        param=where or None,
    )


def _read_int(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number has {len(digits):,} digits, expected at most {MOST_DIGITS}")
    return int(digits)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def check_count(body: Any, most_values: int = MOST_VALUES) -> None:
    """Raises ValueError if a body has too many values; looks at no more than these."""
    left, count = [body], 0
    while left:
        parent = left.pop()
        count += len(parent) if isinstance(parent, dict | list) else 0
        if count > most_values:
            raise _refuse_count(most_values)
        if isinstance(parent, dict):
            left += parent.values()
        elif isinstance(parent, list):
            left += parent


def _refuse_count(most_values: int) -> ValueError:
    return ValueError(f"it has too many values, expected at most {most_values:,}")


class _Objects:
    """Makes the objects of one body, and ends once they are too many: each takes longer than other values."""

    def __init__(self, most_values: int) -> None:
        self._most_values = most_values
        self._count = 0

    def make(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Returns an object; raises ValueError if a name comes twice, or the body has too many."""
        self._count += max(1, len(pairs))
        if self._count > self._most_values + 1:
            raise _refuse_count(self._most_values)
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            for name, _ in pairs:
                if name in seen:
                    raise ValueError(f"the name {name!r:.100} comes twice in an object")
                seen.add(name)
        return found
