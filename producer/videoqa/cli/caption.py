"""`videoqa caption`: the same questions about every video of an archive.

Reads the arguments, hands them to `bulk`, and prints what became of the rows. Exit codes beside the
usual ones: 0, every row has a result; 1, some have none; 2, the manifest is wrong and nothing
was started.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from videoqa.bulk import (
    Estimate,
    Manifest,
    Options,
    OutputDir,
    ProgressReporter,
    RowCounts,
    estimate,
    installed_probe,
    run,
)
from videoqa.cli.arguments import (
    Budget,
    Fps,
    Frames,
    Keyframes,
    MaxTokens,
    Model,
    Overlap,
    Segments,
    Summary,
    Times,
    Tolerance,
    given,
    one_of,
    sampling,
    summary_of,
)
from videoqa.cli.options import settings
from videoqa.client import Client
from videoqa.storage import ObjectStore

__all__ = ["caption"]

INTERRUPTED = "interrupted; jobs in flight go on, and the same command goes on from here"


def caption(
    source: Annotated[
        list[str],
        typer.Argument(
            help="A folder, a glob in quotes, s3://bucket/prefix/, a .jsonl, .csv or .txt file, - "
            "for stdin, or several videos."
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", help="A folder or s3://bucket/prefix for the results.")
    ],
    question: Annotated[
        list[str] | None,
        typer.Option(
            "--question", "-q", help="Asked about each video; may be given several times."
        ),
    ] = None,
    frames: Frames = None,
    fps: Fps = None,
    times: Times = None,
    keyframes: Keyframes = False,
    tolerance: Tolerance = None,
    budget: Budget = None,
    segments: Segments = None,
    overlap: Overlap = None,
    summary: Summary = False,
    max_tokens: MaxTokens = None,
    model: Model = None,
    tenant: Annotated[str | None, typer.Option(help="On whose behalf.")] = None,
    timeout_s: Annotated[
        float | None, typer.Option("--job-timeout", help="Seconds for one attempt at a row [600].")
    ] = None,
    in_flight: Annotated[
        int, typer.Option(min=1, max=10_000, help="Rows that are jobs at the same time.")
    ] = 64,
    order: Annotated[
        str, typer.Option(help="Of results.jsonl: completion, or input at the end.")
    ] = "completion",
    format_: Annotated[
        str, typer.Option("--format", help="jsonl, or parquet for a table beside it.")
    ] = "jsonl",
    subtitles: Annotated[
        str | None, typer.Option(help="vtt or srt: also a subtitle file beside each video.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try rows again that failed in an earlier run.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only look at headers and say what a run would take.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask about every video of an archive; the same command goes on where it was ended."""
    found = settings()
    flags = sampling(
        frames=frames, fps=fps, times=times, keyframes=keyframes, tolerance=tolerance, budget=budget,
        segments=segments, overlap=overlap,
    )  # fmt: skip
    defaults = given(
        questions=question or None, sampling=flags, model=model, tenant=tenant, timeout_s=timeout_s,
        generation={"max_new_tokens": max_tokens} if max_tokens is not None else None,
        priority="bulk", summary=summary_of(summary=summary, segments=segments),
    )  # fmt: skip
    options = Options(
        in_flight=in_flight,
        order=one_of(order, "--order", "completion", "input"),
        parquet=one_of(format_, "--format", "jsonl", "parquet") == "parquet",
        subtitles=one_of(subtitles, "--subtitles", "vtt", "srt") if subtitles is not None else None,
        retry_failed=retry_failed,
    )
    store = ObjectStore(s3_endpoint_url=found.s3_endpoint_url)
    place = OutputDir(output, store)
    with Manifest(source, defaults=defaults, store=store) as manifest:
        if dry_run:
            _print_estimate(
                estimate(manifest, installed_probe(os.environ), ProgressReporter(quiet=as_json)),
                as_json,
            )
            return
        with Client(settings=found) as client:
            tally = run(client, manifest, place, options, ProgressReporter(quiet=as_json))
    _print_tally(tally, place, as_json)
    if tally.failed:
        raise typer.Exit(1)


def _print_tally(tally: RowCounts, place: OutputDir, as_json: bool) -> None:
    if as_json:
        found = {
            "done": tally.done, "failed": tally.failed, "skipped": tally.skipped,
            "seconds": round(tally.seconds, 3), "output": place.url,
        }  # fmt: skip
        print(json.dumps(found))
        return
    print(
        f"{tally.done} done, {tally.skipped} done before, {tally.failed} failed in "
        f"{tally.seconds:.1f} s; {place.url}/results.jsonl has a line for each"
    )
    sys.stdout.flush()
    if tally.failed:
        print("the same command with --retry-failed tries those that failed again", file=sys.stderr)


def _print_estimate(found: Estimate, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(found)))
        return
    print(f"rows           {found.rows}")
    print(f"videos         {found.videos}")
    print(f"hours          {_shown(found.hours, '.2f')}")
    print(f"frames         {_shown(found.frames, ',')}")
    print(f"prompt tokens  {_shown(found.prompt_tokens, ',')}")
    print(f"bytes          {_shown(found.fetched_bytes, ',')}")
    print(f"errors         {found.failed if found.hours is not None else 'unknown'}")
    for text in found.problems:
        print(f"  {text}")
    for note in _notes(found):
        print(f"note: {note}", file=sys.stderr)


def _notes(found: Estimate) -> Iterator[str]:
    if found.unknown:
        yield f"{found.unknown} rows are in no sum: a header does not say how long its video is"
    if found.prompt_tokens is None and found.hours is not None:
        yield "tokens are unknown: the processor of VIDEOQA_MODEL is not on this machine"
    if found.note:
        yield found.note


def _shown(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)
