"""ResultTable: results.jsonl and the tables made of it, with one line for each row that OUTPUT holds.

A run adds lines and replaces those of its own rows; all others stay. New lines are gathered in a
temporary file, and published now and then: the next results.jsonl is written beside the present one,
and takes its place as a whole. So a reader sees whole files only, whoever is killed and however full
the disk is. What was not published is read again from the objects by the next run.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from videoqa.bulk.formats import Format
from videoqa.bulk.names import object_name
from videoqa.bulk.output_dir import OutputDir, translate_disk_errors
from videoqa.bulk.records import ResultLine
from videoqa.bulk.row_index import RowIndex

__all__ = ["ResultTable"]

NAME = "results.jsonl"
PUBLISH_EVERY_S = 1.0
"""Shortest time between two publications, so that others can follow a run."""
PUBLISH_SHARE = 20
"""Publishing takes at most one part in so many of a run's time, however large the file is."""
_ID = re.compile(rb'\{"custom_id": ?("(?:[^"\\]|\\.)*")')


class ResultTable:
    """The lines of all rows of OUTPUT; a context manager for one thread."""

    def __init__(self, output: OutputDir, index: RowIndex, formats: Sequence[Format]) -> None:
        """`formats`: tables that are published beside results.jsonl."""
        self._output, self._index, self._formats = output, index, formats
        self._url = f"{output.url}/{NAME}"
        self._files = ExitStack()
        self._is_changed = False
        self._publish_at_s = 0.0

    def __enter__(self) -> Self:
        with translate_disk_errors(Path(tempfile.gettempdir())), ExitStack() as opened:
            # An unnamed temporary file is gone with the process, even if that is killed.
            self._new = opened.enter_context(tempfile.TemporaryFile())
            self._base = opened.enter_context(self._open_base())
            self._index.add_lines(_find_lines(self._base))
            self._files = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._files.close()

    def _open_base(self) -> IO[bytes]:
        """Opens results.jsonl as it is; empty if there is none."""
        folder = self._output.folder
        if folder is not None and (folder / NAME).is_file():
            return (folder / NAME).open("rb")
        with ExitStack() as opened:
            base = opened.enter_context(tempfile.TemporaryFile())
            if folder is None and self._output.has_file(NAME):
                self._output.store.download(self._url, base)
            opened.pop_all()
        return base

    def add(self, line: ResultLine) -> None:
        """Adds the line of a row, in the place of the one that it may have."""
        with translate_disk_errors(Path(tempfile.gettempdir())):
            offset = self._new.seek(0, os.SEEK_END)
            self._new.write(line.model_dump_json().encode() + b"\n")
        self._index.add_new_line(object_name(line.custom_id), offset)
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
        if not (self._is_changed or by_number or self._lacks_table()):
            return
        folder = self._output.folder
        with translate_disk_errors(folder or Path(tempfile.gettempdir())), ExitStack() as parts:
            lines = parts.enter_context(_Part(folder, NAME))
            self._index.drop_moves()
            offset = 0
            for name, line in self._read_lines(by_number=by_number):
                lines.file.write(line)
                self._index.move_line(name, offset)
                offset += len(line)
            written = [lines]
            for each in self._formats:
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
        self._index.commit_moves()
        self._is_changed = False

    def _lacks_table(self) -> bool:
        return not all(self._output.has_file(each.file_name) for each in self._formats)

    def _read_lines(self, *, by_number: bool) -> Iterator[tuple[str, bytes]]:
        for name, is_new, offset in self._index.list_lines(by_number=by_number):
            file = self._new if is_new else self._base
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
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


def _find_lines(file: IO[bytes]) -> Iterator[tuple[str, int]]:
    """Yields the row's name and the offset of each line; a torn line, which no run of ours leaves, is none."""
    offset = 0
    file.seek(0)
    for line in file:
        custom_id = _parse_custom_id(line)
        if custom_id is not None:
            yield object_name(custom_id), offset
        offset += len(line)


def _parse_custom_id(line: bytes) -> str | None:
    start = _ID.match(line) if line.endswith(b"\n") else None
    try:
        found = json.loads(start[1]) if start else json.loads(line).get("custom_id")
    except (ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None
