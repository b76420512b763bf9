"""Row plans: the state of a row in OUTPUT, and so the reason why a run would ask it again, or not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

from videoqa.bulk.index.output_index import IndexEntry
from videoqa.bulk.index.row_index import RowIndex
from videoqa.bulk.manifest.manifest import Row, compare_digests
from videoqa.bulk.output.subtitle_files import Subtitles
from videoqa.errors import InvalidRequest

__all__ = ["WHERE_STATES", "Planner", "RowPlan", "WhereState", "parse_where"]

RowState = Literal["new", "done", "changed", "failed"]
WhereState = Literal["new", "changed", "failed"]
WHERE_STATES: tuple[WhereState, ...] = get_args(WhereState)
FAILED_BEFORE = "failed before"


@dataclass(frozen=True)
class RowPlan:
    """One row, and what a run does about it."""

    state: RowState
    """new: OUTPUT has nothing of it; changed: it has the outcome of another request; failed: it has a
    failure of this one; done: it has the result of this one."""
    entry: IndexEntry | None = None
    is_asked: bool = False
    """The run submits it."""
    is_read: bool = False
    """The run makes its line, or its subtitles, of the result that is stored."""
    is_left_out: bool = False
    """`where` does not take it."""
    reasons: tuple[str, ...] = ()
    """Reasons to ask again for a row that has an outcome."""


class Planner:
    """Plans the rows of one run."""

    def __init__(
        self,
        index: RowIndex,
        *,
        retry_failed: bool = False,
        where: Collection[WhereState] = (),
        subtitles: Subtitles | None = None,
    ) -> None:
        """`where`: states of the rows to ask; none: all rows are taken, failed ones by `retry_failed`."""
        self._index, self._where, self._subtitles = index, where, subtitles
        self.retries_failed = retry_failed or "failed" in where
        """Failed rows are asked again."""

    def plan(self, row: Row) -> RowPlan:
        entry = self._index.find_known(row.name)
        if entry is None:
            return RowPlan("new", is_asked=self._takes("new"), is_left_out=not self._takes("new"))
        if entry.digest == row.digest and entry.code is None:
            is_read = self._subtitles is not None and str(self._subtitles) != entry.subtitles
            return self._plan_done(entry, is_read=is_read)
        if entry.result_digest == row.digest:  # another request failed later
            return self._plan_done(entry, is_read=True)
        has_failed = (FAILED_BEFORE,) if entry.code else ()
        if entry.digest == row.digest:
            return RowPlan(
                "failed", entry, is_asked=self.retries_failed and self._takes("failed"), reasons=has_failed,
                is_left_out=not self._takes("failed"),
            )  # fmt: skip
        takes = self._takes("changed") or (bool(has_failed) and self._takes("failed"))
        changes = (f"{part} changed" for part in compare_digests(entry.digest, row.digest))
        return RowPlan(
            "changed", entry, is_asked=takes, is_left_out=not takes, reasons=(*changes, *has_failed)
        )

    def _plan_done(self, entry: IndexEntry, *, is_read: bool) -> RowPlan:
        is_left_out = bool(self._where)
        return RowPlan("done", entry, is_read=is_read and not is_left_out, is_left_out=is_left_out)

    def _takes(self, state: WhereState) -> bool:
        return not self._where or state in self._where


def parse_where(text: str) -> tuple[WhereState, ...]:
    """Parses `state=failed` or `state=new,failed`.

    Raises:
        InvalidRequest: it is something else.
    """
    name, _, values = text.partition("=")
    found = tuple(state for state in WHERE_STATES if state in values.split(","))
    if name != "state" or len(found) != len(values.split(",")):
        raise InvalidRequest(
            f"got {text!r}, expected state= and one or several of {', '.join(WHERE_STATES)}, such as "
            "state=failed",
            param="where",
        )
    return found
