"""Journal: results.jsonl, in the order in which rows end or in that of the manifest.

In a folder and in the order of completion, lines are appended to the final file, so that others can
follow it. Otherwise they are gathered in a temporary file and written at the end. Knows lines and
the numbers of their rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from videoqa import errors
from videoqa.bulk.output_dir import OutputDir
from videoqa.bulk.records import ResultLine
from videoqa.bulk.row_index import RowIndex

__all__ = ["Journal"]

NAME = "results.jsonl"


class Journal:
    """The lines of a run; a context manager for one thread."""

    def __init__(self, output: OutputDir, index: RowIndex, *, in_order: bool) -> None:
        """`in_order`: lines are published by the numbers of their rows, not as they were added."""
        self._output, self._index, self._in_order = output, index, in_order
        self.url = f"{output.url}/{NAME}"
        self._direct = output.folder is not None and not in_order
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            # An unnamed temporary file is gone with the process, even if that is killed.
            self._file = self._final.open("w+b") if self._direct else tempfile.TemporaryFile()
        except OSError as error:
            raise _output_denied(self._final, error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._opened.close()

    @property
    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise RuntimeError("the journal is not open")
        return self._file

    @property
    def _final(self) -> Path:
        """Path of results.jsonl if the output is a folder."""
        return (self._output.folder or Path()) / NAME

    def add(self, number: int, line: ResultLine) -> None:
        """Appends the line of a row and flushes it, so that readers see whole lines only."""
        try:
            if self._in_order:
                self._index.add_line(number, self._opened.tell())
            self._opened.write(line.model_dump_json().encode() + b"\n")
            self._opened.flush()
        except OSError as error:
            raise _output_denied(self._final, error) from error

    def lines(self) -> Iterator[bytes]:
        """Yields all lines in their published order."""
        self._opened.flush()
        if not self._in_order:
            self._opened.seek(0)
            yield from self._opened
            return
        for offset in self._index.line_offsets():
            self._opened.seek(offset)
            yield self._opened.readline()

    def publish(self) -> None:
        """Writes results.jsonl, unless its lines were appended there all along.

        Raises:
            OutputDenied, OutputNotFound, OutputUnavailable
        """
        if self._direct:
            return
        if self._output.folder is not None:
            self._replace(self._final)
            return
        with tempfile.TemporaryFile() as gathered:
            gathered.writelines(self.lines())
            self._output.store.upload(gathered, self.url)

    def _replace(self, final: Path) -> None:
        part = final.with_name(f".videoqa-{NAME}")
        try:
            with part.open("wb") as out:
                out.writelines(self.lines())
            part.replace(final)
        except OSError as error:
            raise _output_denied(final, error) from error


def _output_denied(path: Path, error: OSError) -> errors.OutputDenied:
    return errors.OutputDenied(f"can't write {path}: {error.strerror or error}", param="output")
