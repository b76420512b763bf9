"""Tables of jobs and queues: aligned columns for people, one JSON object per line for scripts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from pydantic import BaseModel

from videoqa.cli.output import format_time
from videoqa.contract import Job, QueueInfo

__all__ = ["print_jobs", "print_queues"]

T = TypeVar("T", bound=BaseModel)


def print_jobs(found: Iterable[Job], *, as_json: bool) -> None:
    """Prints a row for each job, with its failure or custom_id at the end."""
    rows = [
        [
            job.id,
            job.state,
            format_time(job.created_at),
            f"{job.attempt}/{job.max_attempts}",
            f"{job.failure.code}: {job.failure.message}" if job.failure else job.custom_id or "",
        ]
        for job in _print_json_lines(found, as_json)
    ]
    _print_table(["JOB", "STATE", "SUBMITTED", "ATTEMPT", ""], rows, as_json)


def print_queues(found: Iterable[QueueInfo], *, as_json: bool) -> None:
    """Prints a row for each queue, with the numbers of waiting jobs and of workers."""
    rows = [
        [
            queue.model or "(any)",
            queue.priority,
            str(queue.waiting),
            str(queue.workers),
            "paused" if queue.paused else "",
        ]
        for queue in _print_json_lines(found, as_json)
    ]
    _print_table(["MODEL", "PRIORITY", "WAITING", "WORKERS", ""], rows, as_json)


def _print_json_lines(found: Iterable[T], as_json: bool) -> Iterable[T]:
    """Yields the items again, after printing each as JSON if that is asked for."""
    for item in found:
        if as_json:
            print(item.model_dump_json())
        yield item


def _print_table(head: list[str], rows: list[list[str]], as_json: bool) -> None:
    if as_json or not rows:
        return
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
