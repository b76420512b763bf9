"""The steps of `videoqa frames`: check the outputs, take the frames, write and print them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from videoqa.cli.output import print_line, print_note
from videoqa.terminal import PlainConsole
from videoqa_worker.cli.frames import report
from videoqa_worker.cli.frames.image_files import (
    check_folder,
    check_sheet,
    write_frames,
    write_sheet,
)
from videoqa_worker.cli.frames.sheet import draw_sheet
from videoqa_worker.cli.frames.take import FramesView, take_frames
from videoqa_worker.settings import WorkerSettings

__all__ = ["load_settings", "run", "run_past_job", "show_fetching"]


def run(
    name: str,
    sampling: dict[str, Any] | None,
    *,
    start: float | None,
    end: float | None,
    out: Path | None,
    sheet: Path | None,
    as_json: bool,
) -> None:
    """Prints the frames of a path or URL, and writes them into `out` and onto `sheet`.

    Raises:
        RequestError, SourceError, SamplingError: as `take_frames`. OutputError: `out` or `sheet`
            can't be written.
    """
    settings = load_settings(os.environ)
    if out is not None:
        check_folder(out)
    if sheet is not None:
        check_sheet(sheet)
    console = PlainConsole(stderr=True, soft_wrap=False)
    with show_fetching(console, quiet=as_json) as on_bytes:
        view = take_frames(name, sampling, start, end, settings, on_bytes)
    files = write_frames(out, view.video.frames) if out is not None else []
    if sheet is not None:
        write_sheet(sheet, draw_sheet(view.video.frames, view.name, report.describe_video(view)))
    if as_json:
        print(json.dumps(report.build_json(view, files, sheet)))
        return
    for line in report.format_lines(view, files, sheet):
        print_line(line)
    sys.stdout.flush()  # before the notes, if stderr goes to the same file
    for note in report.list_notes(view):
        print_note(note)


def run_past_job(job_id: str, *, out: Path | None, sheet: Path | None, as_json: bool) -> None:
    """Prints the frames that the model saw for a job, and writes them into `out` and onto `sheet`.

    Raises:
        RequestError, LookupFailed, SourceError, SamplingError: as `read_past_job` and `take_past_frames`.
        OutputError: the result can't be read, or `out` or `sheet` not be written.
    """
    from videoqa_worker.cli.frames.past_job import read_past_job, take_past_frames

    settings = load_settings(os.environ)
    if out is not None:
        check_folder(out)
    if sheet is not None:
        check_sheet(sheet)
    job = read_past_job(job_id)
    console = PlainConsole(stderr=True, soft_wrap=False)
    with show_fetching(console, quiet=as_json) as on_bytes:
        views = take_past_frames(job, settings, on_bytes)
    frames = [frame for view in views for frame in view.video.frames]
    files = write_frames(out, frames) if out is not None else []
    if sheet is not None:
        title = ", ".join(view.name for view in views)
        write_sheet(sheet, draw_sheet(frames, title, f"{job_id}: {job.request.questions[0].text}"))
    parts = _split_files(files, views)
    if as_json:
        found = [
            report.build_json(view, part, sheet) for view, part in zip(views, parts, strict=True)
        ]
        print(json.dumps({"job_id": job_id, "inputs": found}))
        return
    for view, part in zip(views, parts, strict=True):
        for line in report.format_lines(view, part, sheet if view is views[-1] else None):
            print_line(line)
    sys.stdout.flush()
    if job.result is None:
        print_note(
            "this job has no result: these are the frames that it asks for, and nobody can tell whether "
            "its inputs changed since"
        )
    for note in (note for view in views for note in report.list_notes(view)):
        print_note(note)


def _split_files(files: list[Path], views: list[FramesView]) -> list[list[Path]]:
    """Returns the files of each view."""
    left = iter(files)
    return [list(islice(left, len(view.video.frames))) if files else [] for view in views]


@contextmanager
def show_fetching(
    console: PlainConsole, *, quiet: bool
) -> Iterator[Callable[[int, int | None], None]]:
    """Shows a spinner with the bytes fetched so far, on a terminal; yields the callback for them."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("connecting", total=None)

        def on_bytes(received: int, total: int | None) -> None:
            of_total = f" of {total / 1e6:.1f}" if total else ""
            progress.update(task, description=f"{received / 1e6:.1f}{of_total} MB fetched")

        yield on_bytes


def load_settings(environ: Mapping[str, str]) -> WorkerSettings:
    """Returns a worker's settings, with every file and address of this user allowed."""
    return WorkerSettings.from_environment(environ, file_roots=(Path("/"),), private_addresses=True)
