"""Manifest: the rows of an archive, each a request that holds, read as often as needed.

A run reads it twice: once to check all of it before anything starts, once to submit. Between
the two it keeps nothing, so a manifest may have any number of rows.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import unquote

from videoqa import errors
from videoqa.bulk.line import MAX_NAME, Line
from videoqa.bulk.scratch import Scratch
from videoqa.bulk.source import lines_of
from videoqa.contract import JobRequest, is_image_url, parse_request
from videoqa.storage import ObjectStore, quote_name

__all__ = ["DIGEST_KEY", "Manifest", "Row"]

DIGEST_KEY = "videoqa.caption"
"""Under which a job's metadata, and so its result, carries the digest of its row."""
SHOWN = 20
"""Wrong lines that are told one by one."""
_ASKED = ("inputs", "questions", "sampling", "generation", "model")
"""Fields that decide an answer: another timeout does not make a result a different one."""
_OURS = ("output", "idempotency_key")


@dataclass(frozen=True)
class Row:
    """One video, or a few, and what is asked about them."""

    number: int
    custom_id: str
    request: JobRequest
    digest: str
    """Of what is asked."""


class Manifest:
    """A context manager, since standard input is kept in a file until its end."""

    def __init__(
        self, sources: Sequence[str], *, defaults: Mapping[str, Any], store: ObjectStore
    ) -> None:
        """
        Arguments:
            sources: one folder, glob, prefix, manifest or `-`; or several videos.
            defaults: fields of requests that hold where a line does not say otherwise. A line's
                field takes the place of the whole default, also of `sampling` and `generation`.
        """
        self.sources = tuple(sources)
        self._defaults = dict(defaults)
        self._store = store
        self._stdin: IO[bytes] | None = None

    def __enter__(self) -> Self:
        if self.sources == ("-",):
            self._stdin = tempfile.TemporaryFile()
            shutil.copyfileobj(sys.stdin.buffer, self._stdin)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._stdin is not None:
            self._stdin.close()

    def check(self, scratch: Scratch) -> int:
        """Reads all of it; returns how many rows there are.

        Raises:
            ManifestRefused: one or more lines are wrong, or there is none; all of it is said at once.
        """
        count, problems = 0, _Problems()
        for line in self._lines():
            try:
                row = self._row(line)
            except errors.RequestError as error:
                problems.add(line.number, error)
                continue
            count += 1
            first = scratch.first_seen(row.custom_id, row.number)
            if first != row.number:
                problems.add_text(
                    line.number, f"custom_id {row.custom_id!r} is that of line {first} already"
                )
        problems.refuse(" ".join(self.sources))
        if not count:
            raise errors.ManifestRefused(
                f"{' '.join(self.sources)} holds no video, expected at least one", param="source"
            )
        return count

    def rows(self) -> Iterator[Row]:
        """Again, after `check`.

        Raises:
            ManifestRefused: a line has become wrong since.
        """
        for line in self._lines():
            try:
                yield self._row(line)
            except errors.RequestError as error:
                raise errors.ManifestRefused(
                    f"line {line.number} was changed after it was checked: {error.message}",
                    param="source",
                ) from error

    def _lines(self) -> Iterator[Line]:
        if self._stdin is not None:
            self._stdin.seek(0)
        return lines_of(self.sources, self._store, self._stdin)

    def _row(self, line: Line) -> Row:
        if line.problem:
            raise errors.InvalidRequest(line.problem)
        fields = self._fields(line.fields)
        if "questions" not in fields:
            raise errors.InvalidRequest(
                "got no question, expected --question for all rows, or `question` in this one",
                param="questions",
            )
        request = parse_request(fields)
        name = request.custom_id or ""
        if len(unquote(quote_name(name)).encode()) > MAX_NAME:
            raise errors.InvalidRequest(
                f"got a custom_id of {len(name)} characters, expected one that fits a file's name: "
                f"{MAX_NAME} bytes",
                param="custom_id",
            )
        digest = _digest(request)
        metadata = request.metadata | {DIGEST_KEY: digest}
        return Row(line.number, name, request.model_copy(update={"metadata": metadata}), digest)

    def _fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The line's own fields over the run's; `url` and `question` are short for lists of one."""
        own = dict(fields)
        ours = [name for name in _OURS if name in own]
        if ours:
            raise errors.InvalidRequest(
                f"got {ours[0]}, expected a line without: the run sets it", param=ours[0]
            )
        for short, name in (("url", "inputs"), ("question", "questions")):
            if short in own and name in own:
                raise errors.InvalidRequest(f"got {short} and {name}, expected one of the two")
        if "url" in own:
            own["inputs"] = [_clip(own)]
        if "question" in own:
            own["questions"] = [own.pop("question")]
        if isinstance(own.get("metadata"), dict) and len(own["metadata"]) > 31:
            raise errors.InvalidRequest("got 32 metadata entries, expected at most 31: one is ours")
        return self._defaults | own


def _clip(own: dict[str, Any]) -> Any:
    """Takes `url`, `start` and `end` out of the fields of a line."""
    url = own.pop("url")
    clip = {name: own.pop(name) for name in ("start", "end") if name in own}
    if not clip and isinstance(url, str):
        return url  # a picture by its name stays one
    kind = "image" if isinstance(url, str) and is_image_url(url) else "video"
    return {"kind": kind, "url": url, **clip}


def _digest(request: JobRequest) -> str:
    data = json.loads(request.model_dump_json(include=set(_ASKED), exclude_defaults=True))
    text = json.dumps(data, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class _Problems:
    """All wrong lines: the first ones in words, the rest by their number."""

    def __init__(self) -> None:
        self._told: list[str] = []
        self._count = 0

    def add(self, number: int, error: errors.RequestError) -> None:
        self.add_text(number, error.message)

    def add_text(self, number: int, text: str) -> None:
        self._count += 1
        if len(self._told) < SHOWN:
            self._told.append(f"line {number}: {text}")

    def refuse(self, source: str) -> None:
        if not self._count:
            return
        more = self._count - len(self._told)
        lines = self._told + ([f"and {more} more"] if more else [])
        what = "1 line is wrong" if self._count == 1 else f"{self._count} lines are wrong"
        raise errors.ManifestRefused(
            f"{source}: {what}, nothing was started\n  " + "\n  ".join(lines), param="source"
        )
