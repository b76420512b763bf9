"""Places: where the bytes of files lie, as objects below their ids, read and written in pieces. Calls block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from videoqa.gateway.files.folder_place import FolderPlace
from videoqa.gateway.files.s3_place import S3Place

__all__ = ["ObjectWriter", "Place", "make_place"]


class ObjectWriter(Protocol):
    """An object that is being written; nobody sees it until it is finished."""

    def write(self, data: bytes) -> None: ...

    def finish(self) -> None: ...

    def abort(self) -> None: ...


class Place(Protocol):
    """A folder or a prefix of a bucket."""

    piece_bytes: int
    """Length of the pieces in which an object is written, all but the last."""
    base: str
    """URL of all objects, with a slash at its end."""

    def open(self, file_id: str, name: str) -> ObjectWriter: ...

    def read(self, file_id: str, name: str, start: int, end: int) -> Iterator[bytes]:
        """Yields the bytes from `start` to `end`; raises FileNotFoundError."""

    def join(self, file_id: str, parts: Sequence[str], name: str) -> None:
        """Makes one object of several, in this order; they stay."""

    def remove(self, file_id: str, names: Sequence[str]) -> None:
        """Deletes some objects of a file; those that have gone are no error."""

    def delete(self, file_id: str) -> None:
        """Deletes all objects of a file, also those that are not finished."""

    def list_ids(self) -> Iterator[tuple[str, float]]:
        """Yields the id of each file that has objects, and the time of the last change of one."""


def make_place(
    location: str, prefix: str, *, s3_endpoint_url: str | None, piece_bytes: int
) -> Place:
    """Makes the place of a setting, below which each fleet has a part of its own."""
    if location.startswith("s3://"):
        return S3Place(f"{location.rstrip('/')}/{prefix}/", s3_endpoint_url, piece_bytes)
    return FolderPlace(Path(location).absolute() / prefix)
