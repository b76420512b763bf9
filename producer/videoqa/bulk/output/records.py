"""Records: a line of results.jsonl, a file of failed/, and archive.json.

Frozen models as in the contract, since other programs read them; they grow by optional fields.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import AwareDatetime, ConfigDict

from videoqa.contract import Answer, Failure, FrameUsed, Model, Result, Segment, SourceInfo, Warn

__all__ = [
    "ArchiveRecord",
    "Record",
    "ResultLine",
    "RowFailure",
    "failed_line",
    "parse_line",
    "result_line",
]


class Record(Model):
    """The base of the records, whose fields and docstrings are tables of the reference."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class ArchiveRecord(Record):
    """The facts that OUTPUT remembers of the archive, in archive.json."""

    root: str
    """URL of the folder or prefix below which videos have their names."""
    run: str | None = None
    """Random text from which the id is made under which runs into OUTPUT announce themselves."""


class RowFailure(Record):
    """The reason why a row has no result."""

    custom_id: str
    """The row."""
    inputs: tuple[str, ...] = ()
    """URLs of its videos and images, without credentials and query."""
    digest: str
    """Digest of the row's request."""
    job_id: str | None = None
    """The job; null: the request was refused at its submission."""
    failure: Failure
    """The reason."""
    failed_at: AwareDatetime
    """Instant at which the run learned of it: a result that was finished later is the row's outcome."""


class ResultLine(Record):
    """One row of the archive, done or failed."""

    custom_id: str
    """The row: the video's path below the root, or its own id."""
    ok: bool
    """True: it has a result."""
    inputs: tuple[str, ...] = ()
    """URLs of its videos and images, without credentials and query."""
    answers: tuple[Answer, ...] = ()
    """One answer for each question; for a row in segments: the summary, if it has one."""
    frames: tuple[FrameUsed, ...] = ()
    """Frames that the model saw; empty for a row in segments."""
    sources: tuple[SourceInfo, ...] = ()
    """The version of each input that was read."""
    segments: tuple[Segment, ...] = ()
    """For a row in segments: the answers about each."""
    warnings: tuple[Warn, ...] = ()
    """Remarks about the answers, such as that there were fewer frames than asked for."""
    model: str | None = None
    """The model that answered."""
    model_revision: str | None = None
    """Commit of its checkpoint, if known."""
    job_id: str | None = None
    """The job; null: its request was refused."""
    result: str | None = None
    """URL of the result object, which has all the rest."""
    subtitles: tuple[str, ...] = ()
    """URLs of the subtitle files."""
    error: Failure | None = None
    """Reason why the row has no result."""


_EMPTY_LINE = ResultLine(custom_id="", ok=False).model_dump()


def parse_line(line: bytes) -> dict[str, Any]:
    """Returns a line of results.jsonl with all fields, also one that an earlier release wrote."""
    found: dict[str, Any] = _EMPTY_LINE | json.loads(line)
    return found


def result_line(custom_id: str, url: str, result: Result, subtitles: tuple[str, ...]) -> ResultLine:
    """Returns the line of a row with a result."""
    return ResultLine(
        custom_id=custom_id,
        ok=True,
        inputs=tuple(source.url for source in result.sources),
        answers=result.answers,
        frames=result.frames,
        sources=result.sources,
        segments=result.segments,
        warnings=result.warnings,
        model=result.model,
        model_revision=result.model_revision,
        job_id=result.job_id,
        result=url,
        subtitles=subtitles,
    )


def failed_line(failure: RowFailure) -> ResultLine:
    """Returns the line of a row without a result."""
    return ResultLine(
        custom_id=failure.custom_id, ok=False, inputs=failure.inputs, job_id=failure.job_id,
        error=failure.failure,
    )  # fmt: skip
