"""What the commands print: plain lines for people, JSON for scripts, progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel
from rich.console import Console

from videoqa.client import Client
from videoqa.contract import Event, Job, Result, as_srt, as_vtt, format_timestamp, make_cues
from videoqa.errors import InvalidRequest

__all__ = [
    "Check", "Spoken", "changed", "checks", "error", "event", "failed", "job", "note", "progress",
    "result", "submitted", "subtitles", "when",
]  # fmt: skip

STAGE_VERBS = {
    "fetching": "fetching",
    "sampling": "taking frames",
    "generating": "generating",
    "storing": "storing the result",
}


@dataclass(frozen=True)
class Check:
    """One line of `doctor`."""

    name: str
    ok: bool
    found: str
    next_step: str = ""


class Spoken:
    """An answer that is printed while it comes."""

    def __init__(self) -> None:
        self.text = ""
        self.segments: set[tuple[str, float]] = set()
        """Question and start of those whose answers were printed."""
        self._attempt = 0

    @property
    def begun(self) -> bool:
        return bool(self.text or self.segments)

    def hear(self, event: Event) -> None:
        if event.start is not None:
            _print_segment(event.start, event.text or "")
            self.segments.add((event.question_id or "", event.start))
            return
        if event.attempt != self._attempt and self.text:
            print("\n(its worker was lost; another begins again)", file=sys.stderr)
            self.text = ""
        self._attempt = event.attempt
        self.text += event.text or ""
        print(event.text, end="", flush=True)


def _print_json(data: BaseModel | dict[str, Any], file: Any = None) -> None:
    text = data.model_dump_json() if isinstance(data, BaseModel) else json.dumps(data)
    print(text, file=file or sys.stdout)


def when(at: datetime | None) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else "-"


def submitted(job: Job, *, as_json: bool) -> None:
    """The id alone on stdout, so that `id=$(videoqa submit ...)` works."""
    if as_json:
        _print_json(job)
        return
    print(job.id)
    if job.waiting_for and job.waiting_for.startswith("no running worker"):
        print(f"note: {job.waiting_for}; the job waits", file=sys.stderr)


def job(job: Job, *, as_json: bool) -> None:
    if as_json:
        _print_json(job)
        return
    print(f"job       {job.id}")
    print(
        f"state     {job.state}"
        + (f", {STAGE_VERBS.get(job.stage, job.stage)}" if job.stage else "")
    )
    if job.waiting_for:
        before = f" ({job.position} jobs before it)" if job.position else ""
        print(f"waiting   {job.waiting_for}{before}")
    print(f"attempt   {job.attempt} of {job.max_attempts}")
    print(f"submitted {when(job.created_at)}")
    if job.started_at:
        print(f"started   {when(job.started_at)} by {job.worker or '-'}")
    if job.next_attempt_at:
        print(f"next try  {when(job.next_attempt_at)}")
    if job.finished_at:
        print(f"finished  {when(job.finished_at)}")
    if job.failure:
        print(f"failure   {job.failure.code}: {job.failure.message}")
    if job.result_url:
        print(f"result    {job.result_url}")


def result(result: Result, job: Job, *, as_json: bool, spoken: Spoken | None = None) -> None:
    """The answer alone on stdout if there is one question; where it comes from on stderr."""
    if as_json:
        _print_json(result)
        return
    before = spoken or Spoken()
    if before.text:
        print()
    for part in result.segments:
        for answer in part.answers:
            if (answer.question_id, part.start) not in before.segments:
                alone = len(part.answers) == 1
                text = answer.text if alone else f"{answer.question}\n{answer.text}"
                _print_segment(part.start, text)
    said = [before.text.strip()] == [answer.text.strip() for answer in result.answers]
    if result.segments and result.answers and not said:
        print()
    for answer in () if said else result.answers:
        print(answer.text if len(result.answers) == 1 else f"{answer.question}\n  {answer.text}")
    for warning in result.warnings:
        print(f"note: {warning.message}", file=sys.stderr)
    print(f"{result.model} saw {_seen(result)}; result: {job.result_url}", file=sys.stderr)


def subtitles(result: Result, kind: Literal["vtt", "srt"]) -> None:
    """About the first video.

    Raises:
        InvalidRequest: there is none.
    """
    videos = [n for n, source in enumerate(result.sources) if source.kind == "video"]
    if not videos:
        raise InvalidRequest("got no video in this job, expected one for subtitles", param="format")
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


def _seen(result: Result) -> str:
    if result.segments:
        return f"{result.usage.frames} frames in {len(result.segments)} segments"
    seen = ", ".join(f"{frame.pts_s:.2f}" for frame in result.frames[:16])
    more = ", ..." if len(result.frames) > 16 else ""
    return f"the frames at {seen}{more} s"


def event(event: Event, *, as_json: bool) -> None:
    """One line of a job's history."""
    if as_json:
        _print_json(event)
    elif event.type == "text":
        print(f"{when(event.at)}  {event.question_id}: {event.text}")
    else:
        print(f"{when(event.at)}  {describe(event)}")


def changed(job: Job, what: str, *, as_json: bool) -> None:
    """What was done to one of many jobs."""
    if as_json:
        _print_json(job)
    else:
        print(f"{job.id}  {what}")


def note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def failed(job: Job, *, as_json: bool) -> None:
    if as_json:
        _print_json(job)
        return
    why = f": {job.failure.message} ({job.failure.code})" if job.failure else ""
    print(f"videoqa: job {job.id} {job.state}{why}", file=sys.stderr)


def error(code: str, message: str, param: str | None, *, as_json: bool) -> None:
    """One clear line, never a traceback."""
    if as_json:
        _print_json({"error": {"code": code, "message": message, "param": param}}, sys.stderr)
    else:
        print(f"videoqa: {message} ({code})", file=sys.stderr)


def checks(found: Sequence[Check], *, as_json: bool) -> bool:
    """Prints the checks; whether all are well."""
    well = all(check.ok for check in found)
    if as_json:
        _print_json({"ok": well, "checks": [asdict(check) for check in found]})
        return well
    width = max(len(check.name) for check in found)
    for check in found:
        print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<{width}}  {check.found}")
        if not check.ok and check.next_step:
            print(f"      {'':<{width}}  -> {check.next_step}")
    return well


@contextmanager
def progress(
    client: Client, job_id: str, *, quiet: bool, spoken: Spoken | None = None
) -> Iterator[Callable[[Event], None] | None]:
    """A status line on a terminal, lines otherwise; both on stderr."""
    if quiet:
        yield None
        return
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    last = ""
    with console.status(f"{job_id}: submitted") as line:

        def on_event(event: Event) -> None:
            nonlocal last
            if event.type == "text":
                if spoken is not None:
                    line.stop()
                    spoken.hear(event)
                return
            if spoken is not None and spoken.begun:  # the status line would write over it
                return
            text = f"{job_id}: {describe(event)}"
            if event.type == "state" and event.state == "queued":
                reason = client.get(job_id).waiting_for
                text += f", waiting: {reason}" if reason else ""
            line.update(text)
            if not console.is_terminal and text != last:
                console.print(text)
            last = text

        yield on_event


def describe(event: Event) -> str:
    """An event in words."""
    if event.type == "retry":
        return f"attempt {event.attempt} ended ({event.message}); will be tried again"
    if event.type == "state" or event.stage is None:
        again = (
            f", attempt {event.attempt}" if event.state == "running" and event.attempt > 1 else ""
        )
        why = f" ({event.message})" if event.message else ""
        return event.state + again + why
    count = f" {event.done}/{event.total}" if event.total and event.total > 1 else ""
    about = f" {event.message}" if event.message else ""
    return f"{STAGE_VERBS.get(event.stage, event.stage)}{count}{about}"
