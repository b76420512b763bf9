"""file:// inputs below the folders that the worker's operator has opened; nothing is copied."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote_to_bytes

from videoqa.contract import split_url
from videoqa.errors import (
    InputChanged,
    SamplingError,
    SourceDenied,
    SourceEmpty,
    SourceNotFound,
)
from videoqa_worker.sources.local_copy import FileCopy, name_file_state, read_file_state
from videoqa_worker.sources.ranges.account import FetchAccount

__all__ = ["open_local_file"]


@contextmanager
def open_local_file(account: FetchAccount) -> Iterator[FileCopy]:
    """Yields the file itself, with symlinks resolved.

    Raises:
        SourceDenied, SourceNotFound, SourceEmpty. On exit InputChanged: another process wrote to
        the file, so the bytes read may mix two states.
    """
    account.check_caller()
    copy = _find_file(account)
    try:
        yield copy
    except SamplingError as error:
        if read_file_state(copy.path) != copy.etag:
            raise _make_changed_error(account) from error
        raise
    if read_file_state(copy.path) not in (
        copy.etag,
        None,
    ):  # a file that was deleted meanwhile was read completely
        raise _make_changed_error(account)


def _find_file(account: FetchAccount) -> FileCopy:
    path = _resolve_inside_roots(account)
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceNotFound(
            f"no file at {account.shown_url} on this worker; check the path, and that the worker's "
            "machine has it"
        ) from error
    except OSError as error:
        raise _make_denied_error(account, error.strerror or "cannot be read") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise _make_denied_error(account, f"is {kind}, expected a file")
    if not os.access(path, os.R_OK):
        raise _make_denied_error(account, "may not be read by the worker's user")
    if status.st_size == 0:
        raise SourceEmpty(f"{account.shown_url} has 0 bytes, expected a video or an image")
    return FileCopy(path, status.st_size, name_file_state(status))


def _make_changed_error(account: FetchAccount) -> InputChanged:
    return InputChanged(
        f"{account.shown_url} changed while it was read; try again once it is complete"
    )


def _resolve_inside_roots(account: FetchAccount) -> Path:
    """Resolves the path and refuses it outside the open folders.

    The message is the same whether the file exists or not, so that it reveals nothing.
    """
    roots = account.config.file_roots
    if not roots:
        raise _make_denied_error(account, "file:// is closed; open folders with VIDEOQA_FILE_ROOTS")
    try:
        path = Path(os.fsdecode(unquote_to_bytes(split_url(account.url).path))).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL byte or a loop of symlinks
        raise _make_denied_error(account, "is no path that can be followed") from error
    if not any(path.is_relative_to(root.resolve()) for root in roots):
        raise _make_denied_error(
            account,
            "lies outside the folders of VIDEOQA_FILE_ROOTS (`videoqa up` opens your home and the folder "
            "where it is started)",
        )
    return path


def _make_denied_error(account: FetchAccount, reason: str) -> SourceDenied:
    return SourceDenied(f"{account.shown_url}: {reason}")
