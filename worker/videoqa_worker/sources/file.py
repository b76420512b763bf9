"""file:// below the folders that the worker's operator opened. Nothing is copied."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from videoqa.errors import (
    InputChanged,
    InternalError,
    SamplingError,
    SourceDenied,
    SourceEmpty,
    SourceNotFound,
)
from videoqa_worker.sources.local_copy import FileCopy
from videoqa_worker.sources.ranges.transfer import Transfer

__all__ = ["local_file"]


@contextmanager
def local_file(transfer: Transfer) -> Iterator[FileCopy]:
    """The file itself, symlinks resolved.

    Raises:
        SourceDenied, SourceNotFound, SourceEmpty. On exit InputChanged: others wrote to it, so
        what was read may be of two states, or be damaged by that.
    """
    transfer.listen()
    copy = _found(transfer)
    try:
        yield copy
    except (SamplingError, InternalError) as error:
        if _state(copy.path) != copy.etag:
            raise _changed(transfer) from error
        raise
    if _state(copy.path) not in (copy.etag, None):  # one that is gone was all read before
        raise _changed(transfer)


def _found(transfer: Transfer) -> FileCopy:
    path = _inside_roots(transfer)
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceNotFound(f"no file at {transfer.shown} on this worker") from error
    except OSError as error:
        raise _denied(transfer, error.strerror or "cannot be read") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise _denied(transfer, f"is {kind}, expected a file")
    if not os.access(path, os.R_OK):
        raise _denied(transfer, "may not be read by the worker's user")
    if status.st_size == 0:
        raise SourceEmpty(f"{transfer.shown} has 0 bytes, expected a video or an image")
    return FileCopy(path, status.st_size, _etag(status))


def _etag(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def _state(path: Path) -> str | None:
    try:
        return _etag(path.stat())
    except OSError:
        return None


def _changed(transfer: Transfer) -> InputChanged:
    return InputChanged(
        f"{transfer.shown} changed while it was read; try again once it is complete"
    )


def _inside_roots(transfer: Transfer) -> Path:
    """Says the same whether the file exists or not: what lies outside is not told."""
    roots = transfer.config.file_roots
    if not roots:
        raise _denied(transfer, "file:// is closed; open folders with VIDEOQA_FILE_ROOTS")
    try:
        path = Path(unquote(urlsplit(transfer.url).path, errors="strict")).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL byte, a loop of symlinks
        raise _denied(transfer, "is no path that can be followed") from error
    if not any(path.is_relative_to(root.resolve()) for root in roots):
        raise _denied(transfer, "lies outside the folders of VIDEOQA_FILE_ROOTS")
    return path


def _denied(transfer: Transfer, reason: str) -> SourceDenied:
    return SourceDenied(f"{transfer.shown}: {reason}")
