"""FolderPlace: files in a folder, each in a folder of its own. Several gateways share it by a shared file system."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["FolderPlace"]

_READ_BYTES = 1 << 20


class FolderPlace:
    """A place in the file system."""

    piece_bytes = 1 << 20

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.base = folder.as_uri() + "/"

    def open(self, file_id: str, name: str) -> _FileWriter:
        """Makes a file under another name until it is finished."""
        folder = self._folder / file_id
        folder.mkdir(parents=True, exist_ok=True)
        return _FileWriter(folder / name)

    def read(self, file_id: str, name: str, start: int, end: int) -> Iterator[bytes]:
        """Yields the bytes from `start` to `end`; raises FileNotFoundError."""
        with open(self._folder / file_id / name, "rb") as file:
            file.seek(start)
            while start < end and (data := file.read(min(_READ_BYTES, end - start))):
                start += len(data)
                yield data

    def join(self, file_id: str, parts: Sequence[str], name: str) -> None:
        """Makes one file of several, in this order; they stay, so that it may be tried again."""
        folder = self._folder / file_id
        writer = _FileWriter(folder / name)
        try:
            for part in parts:
                with open(folder / part, "rb") as file:
                    writer.copy(file.fileno())
            writer.finish()
        except BaseException:
            writer.abort()
            raise

    def remove(self, file_id: str, names: Sequence[str]) -> None:
        """Deletes some objects of a file; those that have gone are no error."""
        for name in names:
            (self._folder / file_id / name).unlink(missing_ok=True)

    def delete(self, file_id: str) -> None:
        """Deletes the file's folder."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._folder / file_id)

    def list_ids(self) -> Iterator[tuple[str, float]]:
        """Yields the id of each file that has objects, and the time of the last change of one."""
        with suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    yield entry.name, entry.stat(follow_symlinks=False).st_mtime


class _FileWriter:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._file = open(self._part, "wb", buffering=0)  # noqa: SIM115 - `finish` and `abort` close it

    def write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]

    def copy(self, source: int) -> None:
        """Copies an open file to the end of this one, within the kernel."""
        while os.sendfile(self._file.fileno(), source, None, 1 << 30):
            pass

    def finish(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
        # A worker of another user reads it.
        self._part.chmod(0o644)
        self._part.replace(self._path)

    def abort(self) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)
