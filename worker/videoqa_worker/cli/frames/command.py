"""The story of `videoqa frames`: check where to write, take, write, print."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from videoqa_worker.cli.frames import report
from videoqa_worker.cli.frames.files import check_folder, check_sheet, write_frames, write_sheet
from videoqa_worker.cli.frames.sheet import draw
from videoqa_worker.cli.frames.spinner import Waiting
from videoqa_worker.cli.frames.view import take
from videoqa_worker.settings import WorkerSettings

__all__ = ["run", "settings_from"]


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
    """Shows the frames of a path or URL on stdout, in `out` and on `sheet`.

    Raises:
        RequestError, SourceError, SamplingError: as `take`. OutputError: nowhere to write.
    """
    settings = settings_from(os.environ)
    if out is not None:
        check_folder(out)
    if sheet is not None:
        check_sheet(sheet)
    console = Console(stderr=True, highlight=False)
    with Waiting(console, quiet=as_json) as waiting:
        view = take(name, sampling, start, end, settings, waiting)
    files = write_frames(out, view.video.frames) if out is not None else []
    if sheet is not None:
        write_sheet(sheet, draw(view.video.frames, view.name, report.details(view)))
    if as_json:
        print(json.dumps(report.as_json(view, files, sheet)))
        return
    for line in report.lines(view, files, sheet):
        print(line)
    sys.stdout.flush()  # before the notes, where both go to one place
    for note in report.notes(view):
        print(f"note: {note}", file=sys.stderr)


def settings_from(environ: Mapping[str, str]) -> WorkerSettings:
    """A worker's, but open to all that this user can read and reach."""
    return WorkerSettings.from_environment(environ, file_roots=(Path("/"),), private_addresses=True)
