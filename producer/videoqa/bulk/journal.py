"""Journal: results.jsonl, as rows end or in the order of the manifest.

In a folder and in the order of completion, lines are appended where they belong, so that others
can follow. Otherwise they are gathered in a temporary file and written at the end. Knows lines and
the numbers of their rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from videoqa import errors
from videoqa.bulk.place import Place
from videoqa.bulk.scratch import Scratch
from videoqa.bulk.written import ResultLine

__all__ = ["Journal"]

NAME = "results.jsonl"


class Journal:
    """A context manager; for one thread."""

    def __init__(self, place: Place, scratch: Scratch, *, in_order: bool) -> None:
        self._place, self._scratch, self._in_order = place, scratch, in_order
        self.url = f"{place.url}/{NAME}"
        self._direct = place.folder is not None and not in_order
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            # Without a name, a temporary file is gone with the process, however that ends.
            self._file = self._final.open("w+b") if self._direct else tempfile.TemporaryFile()
        except OSError as error:
            raise _denied(self._final, error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._open.close()

    @property
    def _open(self) -> IO[bytes]:
        if self._file is None:
            raise RuntimeError("the journal is not open")
        return self._file

    @property
    def _final(self) -> Path:
        """In a folder: where the lines belong."""
        return (self._place.folder or Path()) / NAME

    def add(self, number: int, line: ResultLine) -> None:
        """Appends the line of a row; readers see whole lines only."""
        try:
            if self._in_order:
                self._scratch.put_line(number, self._open.tell())
            self._open.write(line.model_dump_json().encode() + b"\n")
            self._open.flush()
        except OSError as error:
            raise _denied(self._final, error) from error

    def lines(self) -> Iterator[bytes]:
        """All lines, in the order asked for."""
        self._open.flush()
        if not self._in_order:
            self._open.seek(0)
            yield from self._open
            return
        for place in self._scratch.places():
            self._open.seek(place)
            yield self._open.readline()

    def publish(self) -> None:
        """Puts the lines where they belong.

        Raises:
            OutputDenied, OutputNotFound, OutputUnavailable
        """
        if self._direct:
            return
        if self._place.folder is not None:
            self._replace(self._final)
            return
        with tempfile.TemporaryFile() as gathered:
            gathered.writelines(self.lines())
            self._place.store.upload(gathered, self.url)

    def _replace(self, final: Path) -> None:
        beside = final.with_name(f".videoqa-{NAME}")
        try:
            with beside.open("wb") as out:
                out.writelines(self.lines())
            beside.replace(final)
        except OSError as error:
            raise _denied(final, error) from error


def _denied(path: Path, error: OSError) -> errors.OutputDenied:
    return errors.OutputDenied(f"can't write {path}: {error.strerror or error}", param="output")
