"""Output of the commands: plain lines for people, JSON for scripts, progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from videoqa.cli.request_lines import format_request
from videoqa.client import Client
from videoqa.contract import (
    Event,
    Job,
    Result,
    as_srt,
    as_vtt,
    describe_state,
    describe_summary,
    format_timestamp,
    make_cues,
)
from videoqa.errors import InvalidRequest, OperatorOnly
from videoqa.printable import printable
from videoqa.terminal import PlainConsole, unguard

__all__ = [
    "Check", "StreamedAnswer", "describe_event", "format_time", "print_change", "print_checks",
    "print_error", "print_event", "print_failure", "print_job", "print_line", "print_note", "print_result",
    "print_submitted", "print_subtitles", "show_progress", "warn_of_summary",
]  # fmt: skip

STAGE_VERBS = {
    "fetching": "fetching",
    "sampling": "taking frames",
    "generating": "generating",
    "storing": "storing the result",
}


@dataclass(frozen=True)
class Check:
    """One line of `videoqa doctor`."""

    name: str
    ok: bool
    found: str
    next_step: str = ""


class StreamedAnswer:
    """Prints an answer while it is generated, and remembers what it printed."""

    def __init__(self) -> None:
        self.text = ""
        self.segments: set[tuple[str, float]] = set()
        """Question id and start of the segments whose answers were printed."""
        self._attempt = 0

    @property
    def has_begun(self) -> bool:
        """True once something was printed."""
        return bool(self.text or self.segments)

    def print_text(self, event: Event) -> None:
        """Prints the text of an event."""
        if event.start is not None:
            _print_segment(event.start, event.text or "")
            self.segments.add((event.question_id or "", event.start))
            return
        if event.attempt != self._attempt and self.text:
            print("\n(the worker was lost; another one starts the answer again)", file=sys.stderr)
            self.text = ""
        self._attempt = event.attempt
        self.text += event.text or ""
        print(event.text, end="", flush=True)


def print_line(text: str, *, file: Any = None, flush: bool = False) -> None:
    """Prints one line: a line break in a name or a message would be a second one of its own choice."""
    print(printable(text), file=file or sys.stdout, flush=flush)


def _print_json(data: BaseModel | dict[str, Any], file: Any = None) -> None:
    text = data.model_dump_json() if isinstance(data, BaseModel) else json.dumps(data)
    print(text, file=unguard(file or sys.stdout))


def format_time(at: datetime | None) -> str:
    """Returns an instant in local time, or a dash."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else "-"


def print_submitted(job: Job, *, as_json: bool) -> None:
    """Prints the id alone on stdout, so that `id=$(videoqa submit ...)` works."""
    if as_json:
        _print_json(job)
        return
    print_line(job.id)
    if job.waiting_for and job.waiting_for.startswith("no running worker"):
        print_note(f"{job.waiting_for}; the job waits until one starts")
    if job.waiting_for and job.waiting_for.endswith("loading the model"):
        print_note(f"{job.waiting_for}; the job begins once one is ready")


def print_job(job: Job, *, as_json: bool) -> None:
    """Prints the state of a job."""
    if as_json:
        _print_json(job)
        return
    print_line(f"job       {job.id}")
    print_line(
        f"state     {job.state}"
        + (f", {STAGE_VERBS.get(job.stage, job.stage)}" if job.stage else "")
    )
    if job.waiting_for:
        before = f" ({job.position} ahead of it)" if job.position else ""
        print_line(f"waiting   {job.waiting_for}{before}")
    for name, text in (
        *(format_request(job.request) if job.request else ()),
        ("tenant", job.tenant),
        ("custom id", job.custom_id),
        ("tags", ", ".join(job.tags)),
    ):
        if text:
            print_line(f"{name:<10}{text}")
    print_line(f"attempt   {job.attempt} of {job.max_attempts}")
    print_line(f"submitted {format_time(job.created_at)}")
    if job.started_at:
        print_line(f"started   {format_time(job.started_at)} by {job.worker or '-'}")
    if job.next_attempt_at:
        print_line(f"next try  {format_time(job.next_attempt_at)}")
    if job.finished_at:
        print_line(f"finished  {format_time(job.finished_at)}")
    if job.failure:
        print_line(f"failure   {job.failure.code}: {job.failure.message}")
    if job.result_url:
        print_line(f"result    {job.result_url}")


def print_result(
    result: Result, job: Job, *, as_json: bool, streamed: StreamedAnswer | None = None
) -> None:
    """Prints the answers on stdout, a single one without its question; details go to stderr."""
    if as_json:
        _print_json(result)
        return
    printed = streamed or StreamedAnswer()
    if printed.text:
        print()
    for part in result.segments:
        for answer in part.answers:
            if (answer.question_id, part.start) not in printed.segments:
                is_only = len(part.answers) == 1
                text = answer.text if is_only else f"{printable(answer.question)}\n{answer.text}"
                _print_segment(part.start, text)
    is_printed = [printed.text.strip()] == [answer.text.strip() for answer in result.answers]
    if result.segments and result.answers and not is_printed:
        print()
    for answer in () if is_printed else result.answers:
        asked = "" if len(result.answers) == 1 else f"{printable(answer.question)}\n  "
        print(asked + answer.text)
    for warning in result.warnings:
        print_note(warning.message)
    print_line(
        f"{result.model} saw {_describe_frames(result)}{', from the cache' if result.cached else ''}; "
        f"result: {job.result_url}",
        file=sys.stderr,
    )


def warn_of_summary(client: Client, model: str | None) -> None:
    """Prints a note if no model that may answer a request for a summary can make one."""
    try:
        workers = [info for info in client.workers() if model in (None, info.model)]
    except OperatorOnly:  # a gateway shows its workers to operators only
        return
    if workers and not any(info.summarizes for info in workers):
        print_note(describe_summary(workers[0].model).message)


def print_subtitles(result: Result, kind: Literal["vtt", "srt"]) -> None:
    """Prints the subtitles of the job's first video.

    Raises:
        InvalidRequest: the job has no video.
    """
    videos = [n for n, source in enumerate(result.sources) if source.kind == "video"]
    if not videos:
        raise InvalidRequest(
            "got a job without a video, expected one for subtitles; use --format text",
            param="format",
        )
    found = make_cues(result, videos[0])
    print(as_vtt(found) if kind == "vtt" else as_srt(found), end="")


def _print_segment(start_s: float, text: str) -> None:
    first, *others = text.strip().splitlines() or [""]
    print(
        "\n".join(
            [f"{format_timestamp(start_s)}  {first}", *(f"{'':14}{line}" for line in others)]
        ),
        flush=True,
    )


def _describe_frames(result: Result) -> str:
    if result.segments:
        # Not those of `usage`, which counts none for answers from the cache.
        count = sum(len(part.frames) for part in result.segments)
        return f"{count} frames in {len(result.segments)} segments"
    times = ", ".join(f"{frame.pts_s:.2f}" for frame in result.frames[:16])
    more = ", ..." if len(result.frames) > 16 else ""
    return f"the frames at {times}{more} s"


def print_event(event: Event, *, as_json: bool) -> None:
    """Prints one line of a job's history."""
    if as_json:
        _print_json(event)
    elif event.type == "text":
        print_line(f"{format_time(event.at)}  {event.question_id}: {event.text}")
    else:
        print_line(f"{format_time(event.at)}  {describe_event(event)}")


def print_change(job: Job, change: str, *, as_json: bool) -> None:
    """Prints what was done to one of many jobs."""
    if as_json:
        _print_json(job)
    else:
        print_line(f"{job.id}  {change}")


def print_note(text: str) -> None:
    """Prints a remark on stderr."""
    print_line(f"note: {text}", file=sys.stderr)


def print_failure(job: Job, *, as_json: bool) -> None:
    """Prints how a job ended that did not succeed, and why."""
    if as_json:
        _print_json(job)
        return
    why = f": {job.failure.message} ({job.failure.code})" if job.failure else ""
    print_line(f"videoqa: job {job.id} {describe_state(job.state)}{why}", file=sys.stderr)


def print_error(code: str, message: str, param: str | None, *, as_json: bool) -> None:
    """Prints an error as one line on stderr."""
    if as_json:
        _print_json({"error": {"code": code, "message": message, "param": param}}, sys.stderr)
    else:
        print_line(f"videoqa: {message} ({code})", file=sys.stderr)


def print_checks(found: Iterable[Check], *, as_json: bool) -> bool:
    """Prints each check when it is done; returns True if all passed."""
    done = []
    for check in found:
        done.append(check)
        if as_json:
            continue
        print_line(
            f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<{_CHECK_WIDTH}}  {check.found}",
            flush=True,
        )
        if not check.ok and check.next_step:
            print_line(f"      {'':<{_CHECK_WIDTH}}  -> {check.next_step}", flush=True)
    passed = all(check.ok for check in done)
    if as_json:
        _print_json({"ok": passed, "checks": [_describe_check(check) for check in done]})
    return passed


def _describe_check(check: Check) -> dict[str, Any]:
    """Returns the fields of a check, without a next step where there is nothing to do."""
    return asdict(check) | ({"next_step": ""} if check.ok else {})


_CHECK_WIDTH = len("worker settings")
"""Width of the longest name of a check."""


@contextmanager
def show_progress(
    client: Client, job_id: str, *, quiet: bool, streamed: StreamedAnswer | None = None
) -> Iterator[Callable[[Event], None] | None]:
    """Shows a job's events on stderr: a status line on a terminal, a line for each otherwise."""
    if quiet:
        yield None
        return
    console = PlainConsole(stderr=True)
    last = ""
    with console.status(f"{job_id}: submitted") as line:

        def on_event(event: Event) -> None:
            nonlocal last
            if event.type == "text":
                if streamed is not None:
                    line.stop()
                    streamed.print_text(event)
                return
            if streamed is not None and streamed.has_begun:  # the status line would overwrite it
                return
            text = f"{job_id}: {describe_event(event)}"
            if event.type == "state" and event.state == "queued":
                reason = client.get(job_id).waiting_for
                text += f", waiting: {reason}" if reason else ""
            line.update(text)
            if not console.is_terminal and text != last:
                console.print(printable(text))
            last = text

        yield on_event


def describe_event(event: Event) -> str:
    """Returns an event as a phrase."""
    if event.type == "retry":
        return f"attempt {event.attempt} failed ({event.message}); it will be retried"
    if event.type == "state" or event.stage is None:
        again = (
            f", attempt {event.attempt}" if event.state == "running" and event.attempt > 1 else ""
        )
        why = f" ({event.message})" if event.message else ""
        return event.state + again + why
    count = f" {event.done}/{event.total}" if event.total and event.total > 1 else ""
    about = f" {event.message}" if event.message else ""
    return f"{STAGE_VERBS.get(event.stage, event.stage)}{count}{about}"
