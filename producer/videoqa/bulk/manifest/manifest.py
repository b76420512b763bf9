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
from fnmatch import fnmatchcase
from typing import IO, Any, Self

from pydantic import ValidationError

from videoqa import errors
from videoqa.bulk.index.row_index import RowIndex
from videoqa.bulk.manifest.archive_root import ArchiveRoot
from videoqa.bulk.manifest.folders import FolderWalker
from videoqa.bulk.manifest.listings import find_place, list_rows
from videoqa.bulk.manifest.manifest_files import SourceLine
from videoqa.bulk.manifest.names import MAX_NAME_BYTES, decode_path, is_short_name, object_name
from videoqa.contract import Input, JobRequest, guess_kind, parse_request
from videoqa.redaction import redact_url
from videoqa.storage import ObjectStore

__all__ = ["DIGEST_KEY", "PARTS", "Digester", "Manifest", "Row", "compare_digests"]

DIGEST_KEY = "videoqa.caption"
"""Key in a job's metadata, and so in its result, for the digest of its row."""
SHOWN = 20
"""Wrong lines that are reported one by one."""
_RESERVED = ("output", "idempotency_key")
"""Fields that the run sets itself."""


@dataclass(frozen=True)
class Row:
    """One video, or a few, and the questions about them."""

    custom_id: str
    request: JobRequest
    digest: str
    """Digest of the fields that decide the answer; see `Digester`."""

    @property
    def name(self) -> str:
        """Name of its objects in OUTPUT."""
        return object_name(self.custom_id)


class Manifest:
    """The rows of one or more sources; a context manager, since it holds a copy of standard input."""

    def __init__(
        self,
        sources: Sequence[str],
        *,
        defaults: Mapping[str, Any],
        store: ObjectStore,
        root: str | None = None,
        only: Sequence[str] = (),
        skip_unreadable: bool = False,
    ) -> None:
        """
        Arguments:
            sources: folders, globs, prefixes, manifest files, videos, or `-` for standard input.
            defaults: fields of requests that hold where a line does not give its own. A line's
                field takes the place of the whole default, also of `sampling` and `generation`.
            root: folder or prefix below which videos have their names; None: the one that the
                sources suggest.
            only: globs for custom_ids, of which a row must match one; none: all rows are taken.
            skip_unreadable: folders that cannot be read are left out and counted.

        Raises:
            InvalidRequest: `root` is no folder or prefix.
        """
        self.sources = tuple(sources)
        self.walker = FolderWalker(skip_unreadable=skip_unreadable)
        self.root = ArchiveRoot(root) if root else ArchiveRoot.above([*map(find_place, sources)])
        self._only = tuple(only)
        self._defaults = _build_defaults(defaults)
        self._store = store
        self._stdin: IO[bytes] | None = None

    def __enter__(self) -> Self:
        if self.sources == ("-",):
            self._stdin = tempfile.TemporaryFile()
            shutil.copyfileobj(sys.stdin.buffer, self._stdin)
        return self

    def __exit__(self, *_: object) -> None:
        if self._stdin is not None:
            self._stdin.close()

    @property
    def tenant(self) -> str | None:
        """The tenant of rows that name none."""
        found = self._defaults.get("tenant")
        return found if isinstance(found, str) else None

    def describe_sources(self) -> str:
        """Returns the names of the sources, URLs without credentials and query."""
        shown = (redact_url(each) if "://" in each else each for each in self.sources)
        return decode_path(" ".join(shown))

    def check(self, index: RowIndex) -> int:
        """Reads all lines; returns how many rows there are.

        Raises:
            ManifestRefused: lines are wrong, or there is no row. All problems are in one message.
        """
        count = taken = 0
        problems = _Problems()
        for line in self._list_lines():
            try:
                request = self._parse(line)
            except errors.RequestError as error:
                problems.add(line.place, error.message)
                continue
            custom_id = request.custom_id or ""
            first = index.add_id(object_name(custom_id), count, line.place)
            if first:
                problems.add(
                    line.place,
                    f"custom_id {custom_id!r} is already that of {first}; give each line its own",
                )
            count += 1
            taken += self._is_taken(custom_id)
        names = self.describe_sources()
        problems.raise_any(names)
        if not taken:
            raise errors.ManifestRefused(
                f"--only takes none of the {count} videos of {names}, expected at least one"
                if count
                else f"{names} holds no video, expected at least one",
                param="source",
            )
        return taken

    def rows(self) -> Iterator[Row]:
        """Yields the rows, after `check` has accepted them.

        Raises:
            ManifestRefused: a line has become wrong since.
        """
        digester = Digester(self.root)
        for line in self._list_lines():
            try:
                request = self._parse(line)
            except errors.RequestError as error:
                raise errors.ManifestRefused(
                    f"{line.place} was changed after it was checked: {error.message}",
                    param="source",
                ) from error
            custom_id = request.custom_id or ""
            if not self._is_taken(custom_id):
                continue
            digest = digester.digest(request)
            metadata = request.metadata | {DIGEST_KEY: digest}
            request = request.model_copy(update={"metadata": metadata})
            yield Row(custom_id, request, digest)

    def _list_lines(self) -> Iterator[SourceLine]:
        if self._stdin is not None:
            self._stdin.seek(0)
        return list_rows(self.sources, self._store, self._stdin, self.walker)

    def _is_taken(self, custom_id: str) -> bool:
        return not self._only or any(fnmatchcase(custom_id, each) for each in self._only)

    def _parse(self, line: SourceLine) -> JobRequest:
        if line.problem:
            raise errors.InvalidRequest(line.problem)
        fields = self._defaults | _normalize(line.fields)
        if "custom_id" not in fields:
            fields["custom_id"] = self._name(fields.get("inputs"))
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

    def _name(self, inputs: Any) -> str:
        """Returns the custom_id of a row without one."""
        (first,) = inputs if isinstance(inputs, list) and len(inputs) == 1 else (None,)
        url = first.get("url") if isinstance(first, dict) else first
        if not isinstance(url, str):
            raise errors.InvalidRequest(
                "got no custom_id, expected one in a line without a single url", param="custom_id"
            )
        return self.root.name(url) or "-"


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
    metadata = own.get("metadata")
    if isinstance(metadata, dict) and DIGEST_KEY in metadata:
        raise errors.InvalidRequest(
            f"got the metadata {DIGEST_KEY}, expected a line without it: the run sets it"
        )
    if isinstance(metadata, dict) and len(metadata) > 31:
        raise errors.InvalidRequest(
            f"got {len(metadata)} metadata entries, expected at most 31: the run adds one"
        )
    return own


def _pop_clip(own: dict[str, Any]) -> Any:
    """Takes `url`, `start` and `end` out of the fields of a line and returns them as one input."""
    url = own.pop("url")
    clip = {name: own.pop(name) for name in ("start", "end") if name in own}
    if not clip and isinstance(url, str):
        return url  # the contract takes a bare URL, and tells an image by its suffix
    kind = guess_kind(url) if isinstance(url, str) else "video"
    return {"kind": kind, "url": url, **clip}


class Digester:
    """Digests of requests by the fields that decide an answer; another timeout does not change them.

    A digest has a part for each of `PARTS`, so that two tell what has changed: 64 bits of SHA-256 over
    canonical JSON. Inputs below the root count by their path, and so are the same wherever the archive
    lies. Rows mostly differ by their inputs alone, so the other parts are kept from one row to the next.
    """

    def __init__(self, root: ArchiveRoot) -> None:
        self._root = root
        self._asked: tuple[Any, ...] = ()
        self._rest = ""

    def digest(self, request: JobRequest) -> str:
        """Returns the parts as hexadecimal digits, joined by dashes."""
        asked = tuple(getattr(request, name) for names in _FIELDS.values() for name in names)
        if asked != self._asked:
            self._rest = "-".join(_digest_fields(request, names) for names in _FIELDS.values())
            self._asked = asked
        inputs = [self._describe(item) for item in request.inputs]
        return f"{_digest(_canonical_json(inputs))}-{self._rest}"

    def _describe(self, item: Input) -> dict[str, Any]:
        found = item.model_dump(mode="json", exclude_defaults=True)
        path = self._root.find_path(item.url)
        return found if path is None else found | {"url": decode_path(path)}


_FIELDS = {
    "question": {"questions", "system", "refine", "answer", "summary"},
    "model": {"model"},
    "settings": {"sampling", "generation"},
}
PARTS = ("input", *_FIELDS)
"""Names of a digest's parts, in order."""


def compare_digests(old: str, new: str) -> tuple[str, ...]:
    """Returns the names of the parts that differ; all if the old one is no digest of this form."""
    parts = old.split("-"), new.split("-")
    if len(parts[0]) != len(PARTS):
        return PARTS
    return tuple(name for name, a, b in zip(PARTS, *parts, strict=True) if a != b)


def _digest_fields(request: JobRequest, names: set[str]) -> str:
    return _digest(
        _canonical_json(request.model_dump(mode="json", include=names, exclude_defaults=True))
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _canonical_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


class _Problems:
    """The wrong lines of a manifest: the first ones with their problem, the rest counted."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self._count = 0

    def add(self, place: str, problem: str) -> None:
        self._count += 1
        if len(self._shown) < SHOWN:
            self._shown.append(f"{place}: {problem}")

    def raise_any(self, source: str) -> None:
        if not self._count:
            return
        more = self._count - len(self._shown)
        lines = self._shown + ([f"and {more} more"] if more else [])
        count = "1 line is wrong" if self._count == 1 else f"{self._count} lines are wrong"
        raise errors.ManifestRefused(
            f"{source}: {count}, nothing was started\n  " + "\n  ".join(lines), param="source"
        )
