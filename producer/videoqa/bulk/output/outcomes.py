"""Outcome: the result or the failure of a row, as its line of results.jsonl and its entry in the index.

The one place that turns objects into a row; `formats.py` turns lines into tables.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from videoqa.bulk.index.output_index import IndexEntry
from videoqa.bulk.manifest.manifest import DIGEST_KEY
from videoqa.bulk.manifest.names import object_name
from videoqa.bulk.output.output_dir import OutputDir, StoredRow
from videoqa.bulk.output.records import ResultLine, RowFailure, failed_line, result_line
from videoqa.contract import Result

__all__ = ["Outcome", "make_failure", "make_outcome"]


@dataclass(frozen=True)
class Outcome:
    """The outcome of one row."""

    line: ResultLine
    entry: IndexEntry
    is_kept: bool = True
    """False: the index forgets it, so that the next run asks the row again."""


def make_outcome(
    output: OutputDir, stored: StoredRow, *, subtitles: str = "", paths: tuple[str, ...] = ()
) -> Outcome | None:
    """Returns the outcome that the objects of a row tell, the later one if there are two; None: no row's.

    Arguments:
        subtitles: kind and place of the subtitle files that were written, whose URLs are `paths`.
    """
    result, failure = stored.result, stored.failure
    result_digest = _find_digest(result) if result else None
    if failure and (result is None or result.finished_at <= failure.failed_at):
        outcome = make_failure(failure, stored.failure_version)
        entry = outcome.entry._replace(result=stored.result_version, result_digest=result_digest)
        return replace(outcome, entry=entry)
    if result is None or result_digest is None or result.custom_id is None:
        return None
    entry = IndexEntry(
        object_name(result.custom_id), result_digest, stored.result_version, result_digest,
        result.job_id, stored.failure_version, result.job_id, subtitles,
    )  # fmt: skip
    url = output.result_url(result.custom_id)
    return Outcome(result_line(result.custom_id, url, result, paths), entry)


def make_failure(failure: RowFailure, version: str | None) -> Outcome:
    """Returns the outcome of a row that has no result; `version` is that of the failure's object."""
    entry = IndexEntry(
        object_name(failure.custom_id), failure.digest, failure=version, job_id=failure.job_id,
        code=failure.failure.code, message=failure.failure.message,
    )  # fmt: skip
    return Outcome(failed_line(failure), entry)


def _find_digest(result: Result) -> str:
    return result.metadata.get(DIGEST_KEY, "")
