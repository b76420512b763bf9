"""Manifest: the rows of an archive, each a valid request, read as often as needed.

A run reads it twice: once to check all of it before anything starts, once to submit. It keeps
nothing between the two, so a manifest may have any number of rows.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Self

from pydantic import ValidationError

from videoqa import errors
from videoqa.bulk.listings import list_rows
from videoqa.bulk.manifest_files import MAX_NAME_BYTES, SourceLine, is_short_name, object_name
from videoqa.bulk.row_index import RowIndex
from videoqa.contract import JobRequest, is_image_url, parse_request
from videoqa.redaction import redact_url
from videoqa.storage import ObjectStore

__all__ = ["DIGEST_KEY", "Digester", "Manifest", "Row"]

DIGEST_KEY = "videoqa.caption"
"""Key in a job's metadata, and so in its result, for the digest of its row."""
SHOWN = 20
"""Wrong lines that are reported one by one."""
_RESERVED = ("output", "idempotency_key")
"""Fields that the run sets itself."""


@dataclass(frozen=True)
class Row:
    """One video, or a few, and the questions about them."""

    number: int
    custom_id: str
    request: JobRequest
    digest: str
    """Digest of the fields that decide the answer; see `Digester`."""


class Manifest:
    """The rows of one or more sources; a context manager, since it holds a copy of standard input."""

    def __init__(
        self, sources: Sequence[str], *, defaults: Mapping[str, Any], store: ObjectStore
    ) -> None:
        """
        Arguments:
            sources: one folder, glob, prefix, manifest or `-`; or several videos.
            defaults: fields of requests that hold where a line does not give its own. A line's
                field takes the place of the whole default, also of `sampling` and `generation`.
        """
        self.sources = tuple(sources)
        self._defaults = _build_defaults(defaults)
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

    def check(self, index: RowIndex) -> int:
        """Reads all lines; returns how many rows there are.

        Raises:
            ManifestRefused: lines are wrong, or there is no row. All problems are in one message.
        """
        count, problems = 0, _Problems()
        for line in self._list_lines():
            try:
                request = self._parse(line)
            except errors.RequestError as error:
                problems.add(line.number, error.message)
                continue
            count += 1
            first = index.add_id(object_name(request.custom_id or ""), line.number)
            if first != line.number:
                problems.add(
                    line.number,
                    f"custom_id {request.custom_id!r} is already that of line {first}; "
                    "give each line its own",
                )
        shown = " ".join(redact_url(each) if "://" in each else each for each in self.sources)
        problems.raise_any(shown)
        if not count:
            raise errors.ManifestRefused(
                f"{shown} holds no video, expected at least one", param="source"
            )
        return count

    def rows(self) -> Iterator[Row]:
        """Yields the rows, after `check` has accepted them.

        Raises:
            ManifestRefused: a line has become wrong since.
        """
        digester = Digester()
        for line in self._list_lines():
            try:
                request = self._parse(line)
            except errors.RequestError as error:
                raise errors.ManifestRefused(
                    f"line {line.number} was changed after it was checked: {error.message}",
                    param="source",
                ) from error
            digest = digester.digest(request)
            metadata = request.metadata | {DIGEST_KEY: digest}
            request = request.model_copy(update={"metadata": metadata})
            yield Row(line.number, request.custom_id or "", request, digest)

    def _list_lines(self) -> Iterator[SourceLine]:
        if self._stdin is not None:
            self._stdin.seek(0)
        return list_rows(self.sources, self._store, self._stdin)

    def _parse(self, line: SourceLine) -> JobRequest:
        if line.problem:
            raise errors.InvalidRequest(line.problem)
        fields = self._defaults | _normalize(line.fields)
        if "questions" not in fields:
            raise errors.InvalidRequest(
                "got no question, expected --question for all rows, or `question` in this one",
                param="questions",
            )
        request = parse_request(fields)
        name = request.custom_id or ""
        if not is_short_name(name):
            raise errors.InvalidRequest(
                f"got a custom_id of {len(name)} characters, expected one that fits a file's name: "
                f"{MAX_NAME_BYTES} bytes",
                param="custom_id",
            )
        return request


def _build_defaults(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Builds the models among the defaults once, so that no row has to; wrong ones fail with row 1."""
    built = {
        name: defaults[name] for name in ("questions", "sampling", "generation") if name in defaults
    }
    with suppress(ValidationError):
        request = JobRequest.model_validate({"inputs": (), "questions": ["-"]} | built)
        built = {name: getattr(request, name) for name in built}
    return {**defaults, **built}


def _normalize(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns a line's fields with `url` and `question` spelled as lists `inputs` and `questions`."""
    own = dict(fields)
    for name in _RESERVED:
        if name in own:
            raise errors.InvalidRequest(
                f"got {name}, expected a line without it: the run sets it", param=name
            )
    for short, name in (("url", "inputs"), ("question", "questions")):
        if short in own and name in own:
            raise errors.InvalidRequest(f"got {short} and {name}, expected one of the two")
    if "url" in own:
        own["inputs"] = [_pop_clip(own)]
    if "question" in own:
        own["questions"] = [own.pop("question")]
    if isinstance(own.get("metadata"), dict) and len(own["metadata"]) > 31:
        raise errors.InvalidRequest(
            f"got {len(own['metadata'])} metadata entries, expected at most 31: the run adds one"
        )
    return own


def _pop_clip(own: dict[str, Any]) -> Any:
    """Takes `url`, `start` and `end` out of the fields of a line and returns them as one input."""
    url = own.pop("url")
    clip = {name: own.pop(name) for name in ("start", "end") if name in own}
    if not clip and isinstance(url, str):
        return url  # the contract takes a bare URL, and tells an image by its suffix
    kind = "image" if isinstance(url, str) and is_image_url(url) else "video"
    return {"kind": kind, "url": url, **clip}


class Digester:
    """Digests of requests by the fields that decide an answer; another timeout does not change it.

    SHA-256 of the canonical JSON of inputs, questions, sampling, generation and model. Rows mostly
    differ by their inputs alone, so the JSON of the other fields is kept from one row to the next.
    """

    def __init__(self) -> None:
        self._asked: tuple[Any, ...] = ()
        self._before = self._after = ""
        """Canonical JSON before and after the value of `inputs`."""

    def digest(self, request: JobRequest) -> str:
        """Returns 32 hexadecimal digits."""
        asked = (request.questions, request.sampling, request.generation, request.model)
        if asked != self._asked:
            self._dump_fields(request)
            self._asked = asked
        inputs = [item.model_dump(mode="json", exclude_defaults=True) for item in request.inputs]
        text = f"{self._before}{_canonical_json(inputs)}{self._after}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _dump_fields(self, request: JobRequest) -> None:
        names = {"questions", "sampling", "generation", "model"}
        data = request.model_dump(mode="json", include=names, exclude_defaults=True)
        texts = {name: f'"{name}":{_canonical_json(value)}' for name, value in data.items()}
        before = [texts[name] for name in sorted(texts) if name < "inputs"]
        after = [texts[name] for name in sorted(texts) if name > "inputs"]
        self._before = "{" + ",".join([*before, '"inputs":'])
        self._after = ",".join(["", *after]) + "}"


def _canonical_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


class _Problems:
    """The wrong lines of a manifest: the first ones with their problem, the rest counted."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self._count = 0

    def add(self, number: int, problem: str) -> None:
        self._count += 1
        if len(self._shown) < SHOWN:
            self._shown.append(f"line {number}: {problem}")

    def raise_any(self, source: str) -> None:
        if not self._count:
            return
        more = self._count - len(self._shown)
        lines = self._shown + ([f"and {more} more"] if more else [])
        count = "1 line is wrong" if self._count == 1 else f"{self._count} lines are wrong"
        raise errors.ManifestRefused(
            f"{source}: {count}, nothing was started\n  " + "\n  ".join(lines), param="source"
        )
