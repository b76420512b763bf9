"""Tables of jobs and queues: aligned columns for people, one JSON object a line for scripts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from pydantic import BaseModel

from videoqa.cli.output import when
from videoqa.contract import Job, QueueInfo

__all__ = ["jobs", "queues"]

T = TypeVar("T", bound=BaseModel)


def jobs(found: Iterable[Job], *, as_json: bool) -> None:
    rows = [
        [
            job.id,
            job.state,
            when(job.created_at),
            f"{job.attempt}/{job.max_attempts}",
            f"{job.failure.code}: {job.failure.message}" if job.failure else job.custom_id or "",
        ]
        for job in _each(found, as_json)
    ]
    _print(["JOB", "STATE", "SUBMITTED", "ATTEMPT", ""], rows, as_json)


def queues(found: Iterable[QueueInfo], *, as_json: bool) -> None:
    rows = [
        [
            queue.model or "(any)",
            queue.priority,
            str(queue.waiting),
            str(queue.workers),
            "paused" if queue.paused else "",
        ]
        for queue in _each(found, as_json)
    ]
    _print(["MODEL", "PRIORITY", "WAITING", "WORKERS", ""], rows, as_json)


def _each(found: Iterable[T], as_json: bool) -> Iterable[T]:
    for item in found:
        if as_json:
            print(item.model_dump_json())
        yield item


def _print(head: list[str], rows: list[list[str]], as_json: bool) -> None:
    if as_json or not rows:
        return
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
