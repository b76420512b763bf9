"""The spool folder, where files lie between fetching and decoding.

Each process has a folder of its own and holds a lock in it. A folder whose lock is free belongs to
a process that died, and the next process to start removes it. Locks, unlike process ids, work
across containers that share a volume.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from videoqa.errors import ConfigurationError
from videoqa_worker.sources.spool.quota import Quota, Reservation

__all__ = ["Spool"]

_PREFIX = "videoqa-spool-"
_LOCK = ".lock"
_BLOCK_BYTES = 512
"""The unit of st_blocks on every filesystem."""
_BIRTH_S = 60.0
"""A younger folder without a lock file belongs to a process that is just starting."""


class Spool:
    """The spool folder of this process; `close` removes it."""

    def __init__(self, root: Path | None, quota_bytes: int) -> None:
        """Creates the folder, and removes those of dead processes.

        Raises:
            ConfigurationError: the root cannot be written to.
        """
        self._root = root or Path(tempfile.gettempdir())
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            for folder in self._root.glob(_PREFIX + "*"):
                _remove_if_dead(folder)
            self.folder, self._lock = _make_folder(self._root)
        except OSError as error:
            raise ConfigurationError(
                f"can't write downloads to {self._root}: {error.strerror}; set VIDEOQA_SPOOL_DIR to "
                "a folder that this user may write",
                param="spool_dir",
            ) from error
        self._quota = Quota(quota_bytes, self._count_others_bytes)

    @contextmanager
    def create_file(self) -> Iterator[tuple[Path, Reservation]]:
        """Yields the path of a new file, deleted on exit, and its reservation of the quota."""
        handle, name = tempfile.mkstemp(dir=self.folder)
        os.close(handle)
        path = Path(name)
        with self._quota.reserve() as reservation:
            try:
                yield path, reservation
            finally:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def _count_others_bytes(self) -> int:
        """Counts the disk space of all other processes' files; holes take none."""
        folders = (other for other in self._root.glob(_PREFIX + "*") if other != self.folder)
        return sum(_count_disk_bytes(folder) for folder in folders)


def _count_disk_bytes(folder: Path) -> int:
    total_bytes = 0
    with suppress(OSError):  # it may vanish meanwhile, or belong to another user
        for path in folder.iterdir():
            with suppress(OSError):
                total_bytes += path.stat().st_blocks * _BLOCK_BYTES
    return total_bytes


def _make_folder(root: Path) -> tuple[Path, IO[bytes]]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        with suppress(OSError):  # a starting process has just removed it as dead: create another
            lock = (folder / _LOCK).open("wb")
            if _try_lock(lock) and (folder / _LOCK).exists():
                return folder, lock
            lock.close()


def _try_lock(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_if_dead(folder: Path) -> None:
    """Removes a dead process's folder; skips those of other users and those that vanish."""
    with suppress(OSError):
        if not (folder / _LOCK).exists():
            if time.time() - folder.stat().st_mtime > _BIRTH_S:
                shutil.rmtree(folder, ignore_errors=True)
            return
        with (folder / _LOCK).open("r+b") as lock:
            if _try_lock(lock):
                shutil.rmtree(folder, ignore_errors=True)
