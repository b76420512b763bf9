"""Pictures of a report: the sheets of its jobs, copied into a folder beside the page.

A sheet is read as any client reads it, while its job's result is there. One that was copied stays, so that the
next report has it also after the job's record is gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from videoqa.client import Client
from videoqa.errors import VideoQAError

__all__ = ["copy_sheets"]

_READERS = 16
"""Sheets that are read at the same time."""
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def copy_sheets(client: Client, job_ids: Iterable[str], folder: Path) -> dict[str, str]:
    """Copies the sheets of these jobs into the folder; returns the file names of those that are there, by job.

    A job without a sheet, or whose sheet cannot be read, is left out.

    Raises:
        OSError: the folder cannot be written.
    """

    def copy(job_id: str) -> tuple[str, str] | None:
        name = f"{job_id}.jpg"
        path = folder / name
        if not path.exists():
            try:
                data = client.sheet(job_id)
            except VideoQAError:
                return None
            partial = folder / f".videoqa-{name}"
            partial.write_bytes(data)
            partial.replace(path)
        return job_id, name

    wanted = [job_id for job_id in dict.fromkeys(job_ids) if _JOB_ID.fullmatch(job_id)]
    if wanted:
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_READERS, thread_name_prefix="pictures") as pool:
        found = dict(_drop_none(pool.map(copy, wanted)))
    if wanted and not found and not any(folder.iterdir()):
        folder.rmdir()
    return found


def _drop_none(pairs: Iterator[tuple[str, str] | None]) -> Iterator[tuple[str, str]]:
    return (pair for pair in pairs if pair is not None)
