"""ResultTable: results.jsonl and the tables made of it, with one line for each row that OUTPUT holds.

A run adds lines and replaces those of its own rows; all others stay. New lines are gathered in a
temporary file, and published now and then: the next results.jsonl is written beside the present one,
and takes its place as a whole. So a reader sees whole files only, whoever is killed and however full
the disk is. What was not published is read again from the objects by the next run.
"""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, Self

from videoqa.bulk.index.output_index import INDEX_NAME, dump_index
from videoqa.bulk.index.row_index import FoundLine, RowIndex
from videoqa.bulk.manifest.names import object_name
from videoqa.bulk.output.formats import Table
from videoqa.bulk.output.outcomes import Outcome
from videoqa.bulk.output.output_dir import OutputDir, translate_disk_errors
from videoqa.bulk.output.subtitle_files import find_written

__all__ = ["ResultTable"]

NAME = "results.jsonl"
PUBLISH_EVERY_S = 1.0
"""Shortest time between two publications, so that others can follow a run."""
PUBLISH_SHARE = 20
"""Publishing takes at most one part in so many of a run's time, however large the file is."""
_ID = re.compile(rb'\{"custom_id": ?("(?:[^"\\]|\\.)*")')


class ResultTable:
    """The lines of all rows of OUTPUT; a context manager for one thread."""

    def __init__(self, output: OutputDir, index: RowIndex, tables: Sequence[Table]) -> None:
        """`tables`: those that are published beside results.jsonl."""
        self._output, self._index, self._tables = output, index, tables
        self._url = f"{output.url}/{NAME}"
        self._files = ExitStack()
        self._base: IO[bytes] | None = None
        """results.jsonl as it was read or published last; None: not opened yet."""
        self._is_changed = self._is_index_changed = False
        self._publish_at_s = 0.0

    def __enter__(self) -> Self:
        with translate_disk_errors(Path(tempfile.gettempdir())), ExitStack() as opened:
            # An unnamed temporary file is gone with the process, even if that is killed.
            self._new: IO[bytes] = opened.enter_context(tempfile.TemporaryFile())
            self._files = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def load(self, indexed_version: str | None) -> None:
        """Forgets outcomes in the index that results.jsonl does not have.

        Arguments:
            indexed_version: the version of results.jsonl that the index was written for: if the file
                is that one, it has them all, and need not be read.
        """
        version = self._output.file_version(NAME)
        if version is None or version != indexed_version:
            self._base = self._open_base(partial(_read_line, self._output.url))
            self._index.drop_unlike_lines()
            # The run before died between two files: all are written again, even if nothing is new.
            self._is_changed = True

    def _open_base(self, read_line: Callable[[str, int, bytes], FoundLine]) -> IO[bytes]:
        """Opens results.jsonl as it is, and notes its lines; empty if there is none."""
        base = self._files.enter_context(self._output.open_file(NAME) or io.BytesIO())
        self._index.add_lines(_find_lines(base, read_line))
        return base

    def _find_base(self) -> IO[bytes]:
        if self._base is None:
            self._base = self._open_base(_note_offset)
        return self._base

    def restore(self, outcome: Outcome) -> None:
        """Adds the outcome of stored objects; a line about the same job stays as it is."""
        if self._base is None:
            self._base = self._open_base(partial(_read_line, self._output.url))
        line = self._index.find_line(outcome.entry.name)
        if line and (line.job_id, line.ok) == (outcome.line.job_id, outcome.line.ok):
            self._index.add_known([outcome.entry._replace(subtitles=line.subtitles)])
            self._is_index_changed = True
        else:
            self.add(outcome)

    def add(self, outcome: Outcome) -> None:
        """Adds the outcome of a row, in the place of the line that it may have."""
        with translate_disk_errors(Path(tempfile.gettempdir())):
            self._find_base()
            offset = self._new.seek(0, os.SEEK_END)
            self._new.write(outcome.line.model_dump_json().encode() + b"\n")
        self._index.add_new_line(outcome.entry.name, offset)
        if outcome.is_kept:
            self._index.add_known([outcome.entry])
        else:
            self._index.forget(outcome.entry.name)
        self._is_changed = True

    def publish_due(self) -> None:
        """Publishes new lines, unless that was done a short time ago; see `publish`."""
        begun_s = time.monotonic()
        if self._is_changed and begun_s >= self._publish_at_s:
            self.publish()
            now_s = time.monotonic()
            self._publish_at_s = now_s + max(PUBLISH_EVERY_S, PUBLISH_SHARE * (now_s - begun_s))

    def publish(self, *, by_number: bool = False) -> None:
        """Publishes results.jsonl and the tables, if anything is new.

        Arguments:
            by_number: the rows of this run come first, in the order of the manifest.

        Raises:
            OutputDenied, OutputNotFound, OutputUnavailable: the published files stay as they were.
        """
        folder = self._output.folder or Path(tempfile.gettempdir())
        with translate_disk_errors(folder):
            if self._is_changed or by_number or self._lacks_table():
                self._publish_lines(by_number=by_number)
                self._index.commit_moves()
                self._is_changed, self._is_index_changed = False, True
            if self._is_index_changed:
                self._publish_index()
                self._is_index_changed = False

    def _publish_lines(self, *, by_number: bool) -> None:
        folder = self._output.folder
        with ExitStack() as parts:
            lines = parts.enter_context(_Part(folder, NAME))
            self._index.drop_moves()
            offset = 0
            for name, line in self._read_lines(by_number=by_number):
                lines.file.write(line)
                self._index.move_line(name, offset)
                offset += len(line)
            written = [lines]
            for each in self._tables:
                lines.file.seek(0)
                part = parts.enter_context(_Part(folder, each.file_name))
                each.write(part.file, iter(lines.file))
                written.append(part)
            for part in written:
                part.sync()
            for part in written:
                part.publish(self._output)
            self._files.close()
            self._base = self._files.enter_context(lines.keep())
            self._new = self._files.enter_context(tempfile.TemporaryFile())

    def _publish_index(self) -> None:
        with _Part(self._output.folder, INDEX_NAME) as part:
            dump_index(part.file, self._output.file_version(NAME), self._index.list_known())
            part.sync()
            part.publish(self._output)

    def _lacks_table(self) -> bool:
        names = (each.file_name for each in self._tables)
        return any(self._output.file_version(name) is None for name in names)

    def _read_lines(self, *, by_number: bool) -> Iterator[tuple[str, bytes]]:
        base = self._find_base()
        for name, is_new, offset in self._index.list_lines(by_number=by_number):
            file = self._new if is_new else base
            file.seek(offset)
            line = file.readline()
            yield name, line if line.endswith(b"\n") else line + b"\n"


class _Part:
    """The next version of a file of OUTPUT, while it is written; a context manager."""

    def __init__(self, folder: Path | None, name: str) -> None:
        """`folder`: the folder of OUTPUT; None: a prefix, for which a temporary file is uploaded."""
        self._name = name
        self._path = folder / f".videoqa-{name}" if folder else None
        self._is_kept = False

    def __enter__(self) -> Self:
        self.file: IO[bytes] = self._path.open("w+b") if self._path else tempfile.TemporaryFile()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_kept:
            self.file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def sync(self) -> None:
        """Writes all of the file to the disk: no power failure leaves it torn under its final name."""
        self.file.flush()
        if self._path is not None:
            os.fsync(self.file.fileno())

    def publish(self, output: OutputDir) -> None:
        if self._path is not None:
            self._path.replace(self._path.with_name(self._name))
        else:
            output.store.upload(self.file, f"{output.url}/{self._name}")

    def keep(self) -> IO[bytes]:
        """Returns the open file, which the caller closes."""
        self._is_kept = True
        return self.file


def _find_lines(
    file: IO[bytes], read_line: Callable[[str, int, bytes], FoundLine]
) -> Iterator[FoundLine]:
    """Yields the lines of a file; a torn one, which no run of ours leaves, is none."""
    offset = 0
    file.seek(0)
    for line in file:
        custom_id = _parse_custom_id(line)
        if custom_id is not None:
            yield read_line(object_name(custom_id), offset, line)
        offset += len(line)


def _note_offset(name: str, offset: int, line: bytes) -> FoundLine:
    return FoundLine(name, offset)


def _read_line(output_url: str, name: str, offset: int, line: bytes) -> FoundLine:
    """Returns the line with its job, by which it is compared with the row's objects."""
    try:
        found = json.loads(line)
        written = find_written(found.get("subtitles") or [], output_url)
        return FoundLine(name, offset, found.get("job_id"), found.get("ok") is True, written)
    except (ValueError, AttributeError, TypeError):
        return FoundLine(name, offset)


def _parse_custom_id(line: bytes) -> str | None:
    start = _ID.match(line) if line.endswith(b"\n") else None
    try:
        found = json.loads(start[1]) if start else json.loads(line).get("custom_id")
    except (ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None
