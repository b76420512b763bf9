"""Lines of a batch's input: each is the request of a chat, with an id of the caller's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any

from videoqa.contract import Job, JobRequest, JobState, parse_request
from videoqa.errors import InvalidRequest, VideoQAError
from videoqa.gateway.batches.record import ENDPOINT, BatchRecord, LineError
from videoqa.gateway.http.bodies import parse_object
from videoqa.gateway.http.problems import find_code, find_message
from videoqa.gateway.openai.chat_request import ChatRequest, parse_chat

__all__ = [
    "MOST_LINES",
    "InputCheck",
    "Line",
    "LineMistake",
    "name_key",
    "parse_line",
    "read_lines",
]

MOST_LINES = 50_000
MOST_ERRORS = 1000
"""Mistakes that are named one by one."""
_MOST_ID = 256
_FIELDS = ("custom_id", "method", "url", "body")
_BOM = b"\xef\xbb\xbf"
_RESULT_TTL_S = 1800.0
"""Lifetime of a line's record in Redis: longer than it takes until its part is stored."""


class LineMistake(Exception):
    """A line that is no request of a chat."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


def name_key(batch_id: str, index: int, number: int) -> str:
    """Returns the idempotency key of a line's first job, with the number 0, or a later one."""
    return f"batch-{batch_id}-{index}" + (f"-{number}" if number else "")


@dataclass
class Line:
    """A line, and what a run knows of its job."""

    index: int
    """Its place in the input, from 0; blank lines do not count."""
    custom_id: str
    asked: ChatRequest
    number: int = 0
    job_id: str | None = None
    state: JobState | None = None
    job: Job | None = None

    def name_key(self, batch_id: str) -> str:
        """Returns the idempotency key of the line's job."""
        return name_key(batch_id, self.index, self.number)

    def make_request(self, record: BatchRecord, request: JobRequest) -> JobRequest:
        """Returns the request of the line's job; it is the same in whichever process it is made."""
        return request.model_copy(
            update={
                "idempotency_key": self.name_key(record.id),
                "custom_id": self.custom_id,
                "priority": "bulk",
                "start_by": datetime.fromtimestamp(record.expires_at, UTC),
                "result_ttl_s": _RESULT_TTL_S,
                "metadata": {"batch": record.id, **request.metadata},
            }
        )


def read_lines(file: IO[bytes], most_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yields the numbers, from 1, and the bytes of all lines that are not blank; one that is too long is cut."""
    number = 0
    while data := file.readline(most_bytes + 1):
        number += 1
        rest = data
        while len(rest) > most_bytes and not rest.endswith(b"\n"):
            rest = file.readline(most_bytes + 1)
        if data.strip():
            yield number, data


def parse_line(data: bytes, index: int, *, most_bytes: int) -> tuple[Line, JobRequest]:
    """Parses a line and its job's request.

    Raises:
        LineMistake
    """
    if len(data) > most_bytes:
        raise LineMistake("line_too_long", f"expected at most {most_bytes:,} bytes")
    if data.startswith(_BOM):
        raise LineMistake(
            "invalid_json_line", "it begins with a byte order mark; save the file as UTF-8 without"
        )
    try:
        found = parse_object(data)
    except InvalidRequest as error:
        raise LineMistake("invalid_json_line", error.message) from error
    for name in found:
        if name not in _FIELDS:
            raise LineMistake(
                "unknown_field", f"got {name!r:.100}, expected {', '.join(_FIELDS)}", name
            )
    custom_id = _read_custom_id(found)
    if found.get("method") != "POST":
        raise LineMistake(
            "invalid_method", f"got {found.get('method')!r:.50}, expected POST", "method"
        )
    if found.get("url") != ENDPOINT:
        raise LineMistake(
            "url_mismatch",
            f"got {found.get('url')!r:.100}, expected the batch's endpoint, {ENDPOINT}",
            "url",
        )
    body = found.get("body")
    if not isinstance(body, dict):
        raise LineMistake("invalid_body", "expected the body of a chat, an object", "body")
    return _parse_body(body, index, custom_id)


def _read_custom_id(found: dict[str, Any]) -> str:
    custom_id = found.get("custom_id")
    if custom_id is None:
        raise LineMistake("missing_custom_id", "expected a text of the caller's", "custom_id")
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= _MOST_ID:
        raise LineMistake(
            "invalid_custom_id", f"expected a text of 1 to {_MOST_ID} characters", "custom_id"
        )
    return custom_id


def _parse_body(body: dict[str, Any], index: int, custom_id: str) -> tuple[Line, JobRequest]:
    try:
        asked = parse_chat(body)
    except VideoQAError as error:
        raise _translate(error) from error
    if asked.stream:
        raise LineMistake("invalid_request", "stream: not supported in a batch", "body.stream")
    line = Line(index, custom_id, asked)
    try:
        return line, parse_request(asked.job)
    except VideoQAError as error:
        raise _translate(asked.translate(error)) from error


def _translate(error: VideoQAError) -> LineMistake:
    param = f"body.{error.param}" if error.param else "body"
    return LineMistake(find_code(error), find_message(error), param)


class InputCheck:
    """Checks all lines of an input; holds 16 bytes a line."""

    def __init__(self, most_bytes: int) -> None:
        self.total = 0
        self.model: str | None = None
        self.errors: list[LineError] = []
        self._most_bytes = most_bytes
        self._ids: dict[bytes, int] = {}
        self._mistakes = 0

    def add(self, number: int, data: bytes) -> tuple[Line, JobRequest] | None:
        """Checks the next line; returns it, or None if it is wrong."""
        self.total += 1
        if self.total > MOST_LINES:
            if self.total == MOST_LINES + 1:
                self.refuse(None, "too_many_tasks", f"expected at most {MOST_LINES:,} lines")
            return None
        try:
            line, request = parse_line(data, self.total - 1, most_bytes=self._most_bytes)
        except LineMistake as mistake:
            self.refuse(number, mistake.code, str(mistake), mistake.param)
            return None
        digest = hashlib.blake2b(line.custom_id.encode(errors="replace"), digest_size=16).digest()
        first = self._ids.setdefault(digest, number)
        if first != number:
            self.refuse(
                number,
                "duplicate_custom_id",
                f"{line.custom_id!r:.100} is that of line {first} already",
                "custom_id",
            )
            return None
        if self.total > 1 and line.asked.model != self.model:
            self.refuse(
                number,
                "model_mismatch",
                f"got the model {line.asked.model!r:.100}, expected {self.model!r:.100} as in the first line",
                "body.model",
            )
            return None
        self.model = line.asked.model
        return line, request

    def refuse(self, number: int | None, code: str, message: str, param: str | None = None) -> None:
        """Notes a mistake."""
        self._mistakes += 1
        if self._mistakes <= MOST_ERRORS:
            where = "" if number is None else f"line {number}: "
            self.errors.append(
                LineError(code=code, message=where + message, param=param, line=number)
            )

    def end(self) -> None:
        """Notes what is wrong with all of it."""
        if not self.total:
            self.refuse(None, "empty_file", "the file has no line")
        if self._mistakes > MOST_ERRORS:
            more = self._mistakes - MOST_ERRORS
            self.errors.append(
                LineError(code="more_errors", message=f"{more:,} more lines are wrong")
            )
