"""`videoqa caption`: the same questions about every video of an archive."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from videoqa.arguments import Budget, Fps, Frames, Keyframes, Tolerance, given, sampling
from videoqa.bulk import Row, Run, Shelf, Summary, checked, read_rows
from videoqa.objects import ObjectStore
from videoqa.options import JsonFlag, connected, settings

__all__ = ["caption"]

LINE_EVERY_S = 10.0


def caption(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder, glob, s3://bucket/prefix/, .jsonl, .csv or .txt file, or - for stdin."
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", help="A folder or s3://bucket/prefix for the results.")
    ],
    question: Annotated[
        list[str] | None,
        typer.Option("--question", "-q", help="A question; may be given several times."),
    ] = None,
    frames: Frames = None,
    fps: Fps = None,
    keyframes: Keyframes = False,
    tolerance: Tolerance = None,
    budget: Budget = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens [100].")] = None,
    model: Annotated[
        str | None, typer.Option(help="A model's name; unset: the fleet's default.")
    ] = None,
    in_flight: Annotated[int, typer.Option(min=1, help="Most jobs at the same time.")] = 64,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try those again that failed before.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every row, and submit nothing.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Ask the same about every video of an archive; the same command again goes on where it stopped."""
    defaults = given(
        questions=question,
        sampling=sampling(
            frames=frames, fps=fps, keyframes=keyframes, tolerance=tolerance, budget=budget
        ),
        generation={"max_new_tokens": max_tokens} if max_tokens is not None else None,
        model=model,
    )
    objects = ObjectStore(s3_endpoint_url=settings().s3_endpoint_url)
    rows = _reader(source, objects)
    total = checked(rows(), defaults)
    shelf = Shelf(output, objects)
    if dry_run:
        _say_dry(total, len(shelf.done("results")), len(shelf.done("failed")), as_json=as_json)
        return
    shelf.claim(defaults)
    begun = time.monotonic()
    with connected() as client, _progress(total, quiet=as_json) as on_change:
        run = Run(client, shelf, defaults, in_flight=in_flight, retry_failed=retry_failed)
        try:
            summary = run.run(rows(), total, on_change)
        except KeyboardInterrupt:
            _note(
                "interrupted; submitted jobs go on. The same command takes up their results",
                as_json,
            )
            raise
    lines = shelf.write_lines(line for row in rows() if (line := shelf.line(row.custom_id)))
    _say(summary, lines, time.monotonic() - begun, as_json=as_json)
    if summary.failed:
        raise typer.Exit(1)


def _reader(source: str, objects: ObjectStore) -> Callable[[], Iterator[Row]]:
    """Reads the rows from the beginning, each time that it is called; stdin can be read but once."""
    if source != "-":
        return lambda: read_rows(source, objects)
    kept = list(read_rows(source, objects))
    return lambda: iter(kept)


def _say_dry(total: int, done: int, failed: int, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"rows": total, "done": done, "failed": failed}))
        return
    print(f"{total} rows, all of them well formed; {done} are answered already, {failed} failed")


def _say(summary: Summary, lines: str, seconds: float, *, as_json: bool) -> None:
    found: dict[str, Any] = {
        "done": summary.done,
        "failed": summary.failed,
        "skipped": summary.skipped,
        "seconds": round(seconds, 1),
        "output": lines,
    }
    if as_json:
        print(json.dumps(found))
        return
    before = f" ({summary.skipped} of them before)" if summary.skipped else ""
    print(f"{summary.done} answered, {summary.failed} failed{before}: {lines}")
    if summary.failed:
        print("try them again with --retry-failed", file=sys.stderr)


def _note(text: str, as_json: bool) -> None:
    if not as_json:
        print(f"\n{text}", file=sys.stderr)


@contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[Callable[[Summary], None]]:
    """A bar on a terminal, a line each 10 s otherwise; both on stderr."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if quiet or not console.is_terminal:
        yield _Lines(console, quiet)
        return
    columns = (
        BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total, state="")
        begun = time.monotonic()

        def on_change(summary: Summary) -> None:
            bar.update(
                task,
                completed=summary.done + summary.failed,
                state=describe(summary, time.monotonic() - begun),
            )

        yield on_change


class _Lines:
    def __init__(self, console: Console, quiet: bool) -> None:
        self._console, self._quiet = console, quiet
        self._begun = self._said = time.monotonic()

    def __call__(self, summary: Summary) -> None:
        now = time.monotonic()
        if not self._quiet and now - self._said >= LINE_EVERY_S:
            self._said = now
            count = f"{summary.done + summary.failed} of {summary.total}"
            self._console.print(f"{count}, {describe(summary, now - self._begun)}")


def describe(summary: Summary, seconds: float) -> str:
    """How it stands, in words."""
    if summary.waiting_for:
        return f"waiting: {summary.waiting_for}"
    fresh = summary.done + summary.failed - summary.skipped
    failed = f"{summary.failed} failed, " if summary.failed else ""
    return f"{failed}{fresh / max(seconds, 0.1):.1f} videos/s"
