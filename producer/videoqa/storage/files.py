"""Files as objects: each is written whole, and by one writer at a time.

This is the half of `objects.py` that knows the file system.
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import (
    EACCES,
    EDQUOT,
    EEXIST,
    EFBIG,
    EISDIR,
    ELOOP,
    EMLINK,
    ENAMETOOLONG,
    ENOSPC,
    ENOSYS,
    ENOTDIR,
    ENOTSUP,
    EOPNOTSUPP,
    EPERM,
    EROFS,
)
from pathlib import Path

from videoqa import errors

__all__ = [
    "DISK_FULL",
    "PART_PREFIX",
    "delete_file",
    "file_version",
    "list_files",
    "read_file",
    "write_file",
]

PART_PREFIX = ".videoqa-"
"""Prefix of the names of files that are still being written."""
DISK_FULL = (ENOSPC, EDQUOT, EFBIG)
"""Errors of a write for which there is no room: on the disk, in the user's quota, by a limit on files."""
_PERMANENT = {EACCES, EPERM, EROFS, ENOTDIR, EISDIR, EEXIST, ENAMETOOLONG, ELOOP}
_NO_HARD_LINKS = {EPERM, ENOSYS, ENOTSUP, EOPNOTSUPP, EMLINK}
"""Answers of file systems without hard links; there, a new file too is named under the lock."""
_LOCK_S = 5.0
"""Longest wait for a lock, which is held for a read and a rename. A new file needs none."""


def write_file(
    path: Path, data: bytes, keeps: Callable[[bytes], bool] | None, max_compared: int
) -> bool:
    """Writes a file whole or not at all; see `ObjectStore.write`.

    Arguments:
        max_compared: `keeps` gets no more bytes of the existing file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=PART_PREFIX, suffix=".part")
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(data)
            # mkstemp's 0600 would keep a backend app of another user out.
            part.chmod(0o644)
            if keeps is None:
                part.replace(path)
                return True
            return _link(part, path) or _swap(part, path, keeps, max_compared)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in _PERMANENT:
            raise errors.OutputDenied(
                f"may not write {path}: {error.strerror}; check the name and the folder's permissions",
                param="output",
            ) from error
        raise errors.OutputUnavailable(
            f"can't write {path}: {error.strerror or error}", param="output"
        ) from error


def _link(part: Path, path: Path) -> bool:
    """Gives a written file its name unless that is taken, in one step that needs no lock."""
    try:
        path.hardlink_to(part)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        return False
    return True


def _swap(part: Path, path: Path, keeps: Callable[[bytes], bool], max_compared: int) -> bool:
    """Compares and replaces the file under the folder's lock, which a process that dies sets free."""
    with _hold_lock(path.parent):
        if path.exists():  # else it has gone meanwhile, or there are no hard links
            if not path.is_file():
                raise OSError(EISDIR, "something that is no file lies there")
            if keeps(read_file(path, max_compared)[0]):
                return False
        part.replace(path)
    return True


@contextmanager
def _hold_lock(folder: Path) -> Iterator[None]:
    """Holds a folder's lock; goes on without it on systems that have no locks.

    Raises:
        OutputUnavailable: another process has held it for `_LOCK_S`.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        until_s = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= until_s:
                    raise errors.OutputUnavailable(
                        f"another process has locked {folder} for {_LOCK_S:g} s; try again, or "
                        "end that process",
                        param="output",
                    ) from error
                time.sleep(0.005)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(handle)


def file_version(found: os.stat_result) -> str:
    """Returns a text that changes whenever the file is replaced: its size, time and inode."""
    return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ino}"


def read_file(path: Path, max_bytes: int | None = None) -> tuple[bytes, str]:
    """Reads a file, or its first `max_bytes`, and its version; raises OutputNotFound or OutputDenied."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise OSError(EISDIR, "it is no file")
            data = file.read(-1 if max_bytes is None else max_bytes)
            return data, file_version(found)
    except FileNotFoundError as error:
        raise errors.OutputNotFound(f"{path} does not exist") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = error.strerror if isinstance(error, OSError) else None
        raise errors.OutputDenied(
            f"can't read {path}: {why or error}; check the file's permissions"
        ) from error


def _open_at_once(path: str, flags: int) -> int:
    """Opens without waiting: a named pipe that nobody writes to would hold its reader for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def list_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Yields the file:// URLs and versions of all files below a folder; none if it does not exist."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise errors.OutputDenied(
                f"can't list {error.filename}: {error.strerror}; check the folder's permissions"
            ) from error

    for parent, _, names in os.walk(folder, onerror=refuse):
        for name in names:
            path = Path(parent, name)
            with suppress(FileNotFoundError):  # it was replaced or deleted meanwhile
                yield path.as_uri(), file_version(path.stat())


def delete_file(path: Path) -> None:
    """Deletes a file, if it exists; raises OutputDenied."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise errors.OutputDenied(
            f"may not delete {path}: {error.strerror}; check the folder's permissions"
        ) from error
