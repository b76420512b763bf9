"""`videoqa caption`: the same questions about every video of an archive.

Reads the arguments, hands them to `bulk`, and prints the numbers of rows by outcome. Exit codes
beside the usual ones: 0, every row has a result; 1, some have none; 2, the manifest is wrong and
nothing was started.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from videoqa.cli.arguments import (
    AnswerFlags,
    FrameFlags,
    Tags,
    check_choice,
    drop_unset,
    expand_flags,
)
from videoqa.cli.output import print_line, print_note, warn_of_summary
from videoqa.client import Client
from videoqa.errors import InvalidRequest
from videoqa.login import find_client_settings
from videoqa.storage import ObjectStore

if TYPE_CHECKING:
    from videoqa.bulk import Estimate, Manifest, OutputDir, ReportCounts, RowCounts, Subtitles

__all__ = ["caption"]

_MOST_SUFFIXES = 8
"""Suffixes of files that were left out, in a note."""

INTERRUPTED = "interrupted; jobs in flight continue, and the same command continues the run"


@expand_flags
def caption(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="The videos: folders, globs in quotes, s3://bucket/prefix/, .jsonl, .csv or .txt "
            "files, - for stdin, or paths and URLs of videos.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="OUTPUT", help="Folder or s3://bucket/prefix for the results."
        ),
    ],
    frame_flags: FrameFlags,
    answer_flags: AnswerFlags,
    question: Annotated[
        list[str] | None,
        typer.Option(
            "--question",
            "-q",
            metavar="TEXT",
            help="Question about each video; may be given several times.",
        ),
    ] = None,
    tags: Tags = None,
    tenant: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel="Job",
            help="Tenant whose jobs these are; tenants take turns.",
        ),
    ] = None,
    timeout_s: Annotated[
        float | None,
        typer.Option(
            "--job-timeout",
            metavar="S",
            rich_help_panel="Job",
            help="Limit on one attempt at a video, in seconds [600].",
        ),
    ] = None,
    in_flight: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000,
            metavar="N",
            show_default=False,
            help="Number of jobs that are open at the same time [twice the slots of the workers].",
        ),
    ] = None,
    order: Annotated[
        str,
        typer.Option(
            metavar="completion|input",
            show_default=False,
            help="Order of results.jsonl; that of the input comes when the run ends [completion].",
        ),
    ] = "completion",
    format_: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="jsonl|csv|parquet",
            help="Also write the answers as a table, beside results.jsonl; may be given several times.",
        ),
    ] = None,
    subtitles: Annotated[
        str | None,
        typer.Option(
            metavar="vtt|srt",
            help="Also write a subtitle file of this form for each video, into OUTPUT/subtitles.",
        ),
    ] = None,
    beside_videos: Annotated[
        bool,
        typer.Option(
            "--beside-videos",
            help="With --subtitles: write them beside the videos; no other file is replaced.",
        ),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            show_default=False,
            help="Also write a page of all answers to look at, with contact sheets in a folder beside it.",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Retry the videos that failed in an earlier run.")
    ] = False,
    root: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder or s3://bucket/prefix/ below which videos have their names [that of the "
            "first run into OUTPUT, else that of SOURCE].",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Take only videos whose custom_id matches; may be given several times.",
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="state=STATE",
            help="Ask only the videos whose state in OUTPUT is new, changed or failed.",
        ),
    ] = None,
    skip_unreadable: Annotated[
        bool,
        typer.Option(
            "--skip-unreadable", help="Leave out folders that cannot be read, and count them."
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Only print which videos a run would ask and why, and what their headers tell of it.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask about every video of an archive. The same command continues an interrupted run."""
    from videoqa.bulk import (  # no other command needs it
        Manifest,
        Options,
        OutputDir,
        ProgressReporter,
        check_report,
        estimate_manifest,
        installed_probe,
        parse_where,
        run_manifest,
        write_report,
    )

    found = find_client_settings()
    if found.log_format is not None:
        from videoqa.telemetry.log_setup import configure_logs

        configure_logs(found.log_level, found.log_format, hide_text=found.hide_text)
    own = drop_unset(
        questions=question or None, tags=tags or None, tenant=tenant, timeout_s=timeout_s,
        priority="bulk", sheet=True if report is not None else None,
    )  # fmt: skip
    if report is not None:
        check_report(report)
    defaults = own | frame_flags.build() | answer_flags.build()
    options = Options(
        in_flight=in_flight,
        order=check_choice(order, "--order", "completion", "input"),
        formats=tuple(
            check_choice(each, "--format", "jsonl", "csv", "parquet") for each in format_ or ()
        ),
        subtitles=_build_subtitles(subtitles, beside_videos=beside_videos),
        retry_failed=retry_failed,
        where=parse_where(where) if where is not None else (),
    )
    store = ObjectStore(s3_endpoint_url=found.s3_endpoint_url)
    results = OutputDir(output, store)
    with Manifest(
        source, defaults=defaults, store=store, root=root or results.read_root(), only=only or (),
        skip_unreadable=skip_unreadable,
    ) as manifest:  # fmt: skip
        if dry_run:
            found_estimate = estimate_manifest(
                manifest,
                installed_probe(os.environ),
                ProgressReporter(quiet=as_json),
                results,
                options,
            )
            _print_estimate(found_estimate, as_json)
            _print_left_out(manifest, as_json)
            return
        with Client(settings=found) as client:
            if frame_flags.summary and not as_json:
                warn_of_summary(client, answer_flags.model)
            counts = run_manifest(
                client, manifest, results, options, ProgressReporter(quiet=as_json)
            )
            shown = None if report is None else write_report(client, results, report)
    _print_counts(counts, manifest, results, as_json)
    if shown is not None and not as_json:
        _print_report(report, shown)
    _print_left_out(manifest, as_json)
    if counts.failed:
        raise typer.Exit(1)


def _build_subtitles(kind: str | None, *, beside_videos: bool) -> Subtitles | None:
    from videoqa.bulk import Subtitles

    if kind is not None:
        return Subtitles(check_choice(kind, "--subtitles", "vtt", "srt"), beside_videos)
    if beside_videos:
        raise InvalidRequest("got --beside-videos without --subtitles, expected both or neither")
    return None


def _print_counts(counts: RowCounts, manifest: Manifest, output: OutputDir, as_json: bool) -> None:
    if as_json:
        found = {
            "done": counts.done, "failed": counts.failed, "skipped": counts.skipped,
            "left_out": counts.left_out, "unreadable_folders": manifest.walker.unreadable,
            "linked_folders": manifest.walker.links, "other_files": manifest.walker.others,
            "seconds": round(counts.seconds, 3), "output": output.url,
        }  # fmt: skip
        print(json.dumps(found))
        return
    print_line(
        f"{counts.done} done, {counts.skipped} done before, {counts.failed} failed in "
        f"{counts.seconds:.1f} s; {output.url}/results.jsonl has a line for each"
        + (f"; {counts.left_out} in other states were left out" if counts.left_out else "")
    )
    sys.stdout.flush()
    if counts.failed:
        print_note("the same command with --retry-failed retries the failed ones")


def _print_report(report: Path | None, shown: ReportCounts) -> None:
    print_line(
        f"{report} shows {shown.videos} videos, {shown.pictures} of them with a contact sheet"
    )
    if shown.pictures < shown.answered:
        print_note(
            "workers keep sheets below VIDEOQA_SHEET_OUTPUT, which must be set here as well; videos that were done "
            "before without one have none until they are asked again"
        )


def _print_left_out(manifest: Manifest, as_json: bool) -> None:
    """Prints which folders a run of this manifest leaves out."""
    walker = manifest.walker
    if walker.unreadable and not as_json:
        print_note(f"{walker.unreadable} folders could not be read and were left out")
    if walker.others and not as_json:
        shown = [f"{count} {suffix}" for suffix, count in walker.others.items()]
        more = (
            f", and {len(shown) - _MOST_SUFFIXES} more suffixes"
            if len(shown) > _MOST_SUFFIXES
            else ""
        )
        print_note(
            f"{sum(walker.others.values())} files were left out, since their suffixes are none of videos: "
            f"{', '.join(shown[:_MOST_SUFFIXES])}{more}; a manifest file may name any file"
        )
    if walker.links and not as_json:
        print_note(
            f"{walker.links} symbolic links to folders were left out; name such a folder as one more "
            "SOURCE if its videos are wanted"
        )


def _print_estimate(found: Estimate, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(found)))
        return
    plan = found.plan
    print(f"rows           {found.rows}")
    print(f"  new          {plan.new}")
    print(f"  done         {plan.done}")
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(plan.reasons.items()))
    print_line(f"  ask again    {plan.again}" + (f" ({reasons})" if reasons else ""))
    if plan.failed:
        print(f"  failed       {plan.failed} (--retry-failed asks them again)")
    print(f"videos         {found.videos}")
    print(f"hours          {_format_sum(found.hours, '.2f')}")
    print(f"frames         {_format_sum(found.frames, ',')}")
    print(f"prompt tokens  {_format_sum(found.prompt_tokens, ',')}")
    print(f"bytes          {_format_sum(found.fetched_bytes, ',')}")
    print(f"errors         {found.failed if found.hours is not None else 'unknown'}")
    for text in found.problems:
        print_line(f"  {text}")
    for note in _list_notes(found):
        print_note(note)


def _list_notes(found: Estimate) -> Iterator[str]:
    if found.plan.left_out:
        yield f"{found.plan.left_out} rows are in another state than --where asks for"
    if found.unknown:
        yield f"{found.unknown} rows are left out of the sums: their headers do not give the length"
    if found.prompt_tokens is None and found.hours is not None:
        yield "prompt tokens are unknown: the processor of VIDEOQA_MODEL is not on this machine"
    if found.note:
        yield found.note


def _format_sum(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)
