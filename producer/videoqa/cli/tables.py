"""Tables of jobs and queues: aligned columns for people, one JSON object per line for scripts.

On a terminal a table fits its width: long cells are cut with an ellipsis, and the last columns are left
out if there is no room for them. `--wide` shows all. In a pipe nothing is cut.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel
from rich.cells import cell_len, set_cell_size

from videoqa.cli.request_lines import join_lines
from videoqa.contract import Job, QueueInfo, UsageRow, WorkerInfo
from videoqa.printable import printable
from videoqa.terminal import unguard

__all__ = [
    "Column", "format_age", "format_table", "print_dead", "print_jobs", "print_queues", "print_rows",
    "print_workers",
]  # fmt: skip

T = TypeVar("T", bound=BaseModel)

_GAP = "  "
_LEAST_SHORT = 4
"""Columns by which the only cell that is cut may miss its least width; one that misses more is left out."""


@dataclass(frozen=True)
class Column(Generic[T]):
    """One column of a table, and the part of it that a narrow terminal shows."""

    head: str
    text: Callable[[T], str]
    cut: Literal["never", "end", "start"] = "never"
    """The side from which a long cell loses characters; of a path the end tells most."""
    least: int = 10
    """Least width of a column that is cut; one that has less room is left out."""
    is_wide: bool = False
    """Shown with `--wide` only."""


def _list_job_columns() -> list[Column[Job]]:
    return [
        Column("JOB", lambda job: job.id),
        Column("STATE", lambda job: job.state),
        Column("AGE", lambda job: format_age(job.created_at)),
        Column("ATTEMPT", lambda job: f"{job.attempt}/{job.max_attempts}", is_wide=True),
        Column("INPUT", _first_input, cut="start"),
        Column("QUESTION", _first_question, cut="end"),
        Column("CUSTOM ID", lambda job: job.custom_id or "", cut="end"),
        Column("FAILURE", _describe_failure, cut="end", least=16),
    ]


def _list_dead_columns() -> list[Column[Job]]:
    return [
        Column("JOB", lambda job: job.id),
        Column("AGE", lambda job: format_age(job.finished_at or job.created_at)),
        Column("ATTEMPT", lambda job: f"{job.attempt}/{job.max_attempts}", is_wide=True),
        Column("FAILURE", _describe_failure, cut="end", least=24),
        Column("INPUT", _first_input, cut="start"),
        Column("QUESTION", _first_question, cut="end"),
        Column("CUSTOM ID", lambda job: job.custom_id or "", cut="end"),
    ]


def print_jobs(found: Iterable[Job], *, as_json: bool, wide: bool) -> int:
    """Prints a row for each job, and returns their number."""
    return print_rows(_list_job_columns(), found, as_json, wide)


def print_dead(found: Iterable[Job], *, as_json: bool, wide: bool) -> int:
    """Prints a row for each failed job, with its failure in front; returns their number."""
    return print_rows(_list_dead_columns(), found, as_json, wide)


def print_queues(found: Iterable[QueueInfo], *, as_json: bool, wide: bool) -> int:
    """Prints a row for each queue, with the numbers of jobs, workers and slots; returns their number."""
    columns: list[Column[QueueInfo]] = [
        Column("MODEL", lambda queue: queue.model or "(any)", cut="start"),
        Column("PRIORITY", lambda queue: queue.priority),
        Column("STATE", lambda queue: "paused" if queue.paused else "open"),
        Column("WAITING", lambda queue: str(queue.waiting)),
        Column("RUNNING", lambda queue: str(queue.running)),
        Column("DELAYED", lambda queue: str(queue.delayed)),
        Column("OLDEST", lambda queue: format_age(queue.oldest_at) if queue.oldest_at else "-"),
        Column("DUE", lambda queue: str(queue.due), is_wide=True),
        Column("WORKERS", lambda queue: str(queue.workers)),
        Column("SLOTS", lambda queue: str(queue.slots)),
    ]
    return print_rows(columns, found, as_json, wide)


def print_usage(found: Iterable[UsageRow], *, as_json: bool, wide: bool) -> int:
    """Prints a row for each day, model, tag, key or tenant, and returns their number."""
    columns: list[Column[UsageRow]] = [
        Column("NAME", lambda row: "(others)" if row.other else row.name or "(none)"),
        Column("SUCCEEDED", lambda row: str(row.succeeded)),
        Column("FAILED", lambda row: str(row.failed)),
        Column("CANCELED", lambda row: str(row.canceled)),
        Column("EXPIRED", lambda row: str(row.expired)),
        Column("ANSWERS", lambda row: str(row.answers)),
        Column("FRAMES", lambda row: str(row.frames)),
        Column("TOKENS IN", lambda row: str(row.input_tokens)),
        Column("OUT", lambda row: str(row.output_tokens)),
        Column("VIDEO S", lambda row: f"{row.video_s:.0f}"),
        Column("BYTES", lambda row: str(row.bytes_fetched), is_wide=True),
        Column("PROCESSING S", lambda row: f"{row.processing_s:.0f}", is_wide=True),
    ]
    return print_rows(columns, found, as_json, wide)


def print_workers(found: Iterable[WorkerInfo], *, as_json: bool, wide: bool) -> int:
    """Prints a row for each worker, and returns their number."""
    columns: list[Column[WorkerInfo]] = [
        Column("WORKER", lambda worker: worker.id),
        Column("STATE", lambda worker: worker.state),
        Column("RUNNING", lambda worker: str(worker.running)),
        Column("SLOTS", lambda worker: str(worker.slots)),
        Column("SEEN", lambda worker: f"{format_age(worker.seen_at)} ago"),
        Column("MODEL", lambda worker: worker.model, cut="start"),
        Column("DEVICE", lambda worker: worker.device or "", cut="end", least=4),
        Column("VERSION", lambda worker: worker.version or "", cut="end", least=5),
        Column("HOST", lambda worker: worker.host or "", cut="end", least=4),
        Column("UP", lambda worker: format_age(worker.started_at), is_wide=True),
    ]
    return print_rows(columns, found, as_json, wide)


def _first_input(job: Job) -> str:
    """Returns the job's first input, and the number of others."""
    inputs = job.request.inputs if job.request else ()
    more = f" +{len(inputs) - 1}" if len(inputs) > 1 else ""
    return inputs[0].url + more if inputs else ""


def _first_question(job: Job) -> str:
    questions = job.request.questions if job.request else ()
    more = f" +{len(questions) - 1}" if len(questions) > 1 else ""
    return questions[0].text + more if questions else ""


def _describe_failure(job: Job) -> str:
    return f"{job.failure.code}: {job.failure.message}" if job.failure else ""


def format_age(since: datetime) -> str:
    """Returns the time since an instant, in its largest unit: `12s`, `3m`, `5h`, `2d`."""
    seconds = max(0.0, (datetime.now(UTC) - since).total_seconds())
    for unit, length_s in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length_s:
            return f"{int(seconds // length_s)}{unit}"
    return f"{int(seconds)}s"


def print_rows(columns: Sequence[Column[T]], found: Iterable[T], as_json: bool, wide: bool) -> int:
    """Prints a row for each item, as a table or as JSON lines; returns their number."""
    rows = []
    for item in found:
        if as_json:
            print(item.model_dump_json(), file=unguard(sys.stdout))
        rows.append(item)
    if rows and not as_json:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() and not wide else None
        for line in format_table(columns, rows, width=width, wide=wide):
            print(line)
    return len(rows)


def format_table(
    columns: Sequence[Column[T]], items: Sequence[T], *, width: int | None, wide: bool = False
) -> list[str]:
    """Returns the lines of a table.

    Arguments:
        width: columns of the terminal; None: nothing is cut.
        wide: show the columns of `--wide` as well.
    """
    cells = {
        column: [printable(join_lines(column.text(item))) for item in items]
        for column in columns
        if wide or not column.is_wide
    }
    # A column that may be cut and has nothing to show only takes room.
    shown = [column for column in cells if column.cut == "never" or any(cells[column])]
    natural = [max(map(cell_len, (column.head, *cells[column]))) for column in shown]
    if width is not None:
        shown, natural = _fit(shown, natural, width)
    lines = [[column.head for column in shown]]
    lines += [[cells[column][row] for column in shown] for row in range(len(items))]
    return [
        _GAP.join(
            _cut(cell, size, column.cut)
            for cell, size, column in zip(line, natural, shown, strict=True)
        ).rstrip()
        for line in lines
    ]


def _fit(
    columns: list[Column[T]], natural: list[int], width: int
) -> tuple[list[Column[T]], list[int]]:
    """Returns the columns that have room, and their widths: what is left goes to those that are cut, evenly."""
    columns, natural = list(columns), list(natural)
    while True:
        sizes = [
            size if column.cut == "never" else min(size, column.least)
            for column, size in zip(columns, natural, strict=True)
        ]
        left = width - sum(sizes) - len(_GAP) * (len(sizes) - 1)
        flexible = [n for n, column in enumerate(columns) if column.cut != "never"]
        if left >= 0 or not flexible or (len(flexible) == 1 and left >= -_LEAST_SHORT):
            break
        del columns[flexible[-1]], natural[flexible[-1]]
    if left < 0 and flexible:
        sizes[flexible[0]] = max(1, sizes[flexible[0]] + left)
    while left > 0 and (growing := [n for n in flexible if sizes[n] < natural[n]]):
        for n in growing[:left]:
            sizes[n] += 1
        left -= len(growing[:left])
    return columns, sizes


def _cut(cell: str, size: int, side: str) -> str:
    """Returns the cell with this width, in columns of the terminal."""
    if cell_len(cell) > size and side == "end":
        cell = set_cell_size(cell, size - 1).rstrip() + "…"
    elif cell_len(cell) > size and side == "start":
        while (excess := cell_len(cell) - (size - 1)) > 0:
            cell = cell[(excess + 1) // 2 :]  # a character is two columns wide at most
        cell = "…" + cell
    return cell + " " * (size - cell_len(cell))
