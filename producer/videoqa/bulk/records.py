"""Records: a line of results.jsonl, a file of failed/, and archive.json.

Frozen models as in the contract, since other programs read them; they grow by optional fields.
"""

from __future__ import annotations

from pydantic import AwareDatetime

from videoqa.contract import Answer, Failure, FrameUsed, Model, Result, Segment, SourceInfo

__all__ = ["ArchiveRecord", "ResultLine", "RowFailure", "failed_line", "result_line"]


class ArchiveRecord(Model):
    """The facts that OUTPUT remembers of the archive, in archive.json."""

    root: str
    """URL of the folder or prefix below which videos have their names."""


class RowFailure(Model):
    """The reason why a row has no result."""

    custom_id: str
    digest: str
    """Digest of the row's request."""
    job_id: str | None = None
    """None: the request was refused at its submission."""
    failure: Failure
    failed_at: AwareDatetime
    """Instant at which the run learned of it: a result that was finished later is the row's outcome."""


class ResultLine(Model):
    """One row of the archive, done or failed."""

    custom_id: str
    ok: bool
    answers: tuple[Answer, ...] = ()
    frames: tuple[FrameUsed, ...] = ()
    sources: tuple[SourceInfo, ...] = ()
    segments: tuple[Segment, ...] = ()
    """Filled for a row with `method="segment"`."""
    model: str | None = None
    model_revision: str | None = None
    job_id: str | None = None
    result: str | None = None
    """URL of the result object, which has all the rest."""
    subtitles: tuple[str, ...] = ()
    """URLs of the subtitle files."""
    error: Failure | None = None


def result_line(custom_id: str, url: str, result: Result, subtitles: tuple[str, ...]) -> ResultLine:
    """Returns the line of a row with a result."""
    return ResultLine(
        custom_id=custom_id,
        ok=True,
        answers=result.answers,
        frames=result.frames,
        sources=result.sources,
        segments=result.segments,
        model=result.model,
        model_revision=result.model_revision,
        job_id=result.job_id,
        result=url,
        subtitles=subtitles,
    )


def failed_line(failure: RowFailure) -> ResultLine:
    """Returns the line of a row without a result."""
    return ResultLine(
        custom_id=failure.custom_id, ok=False, job_id=failure.job_id, error=failure.failure
    )
