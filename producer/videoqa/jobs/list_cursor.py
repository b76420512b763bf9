"""ListCursor: the position of a job in an index, from which a list of jobs goes on."""

from __future__ import annotations

import re
from typing import NamedTuple

from videoqa import errors

__all__ = ["ListCursor"]


class ListCursor(NamedTuple):
    """Position of a job in an index; it stays valid when the job's own entry is gone."""

    at_s: float
    """UNIX time at which the job was recorded, by Redis' clock: an id bears its producer's clock."""
    job_id: str

    @property
    def text(self) -> str:
        """The cursor as callers get it, in `JobPage.next_cursor`."""
        return f"{self.at_s:.6f}-{self.job_id}"

    @classmethod
    def parse(cls, text: str) -> ListCursor:
        """Parses the cursor of a page; raises InvalidRequest if the text is not one."""
        found = re.fullmatch(r"(\d{1,12}\.\d{6})-(job_[0-9a-f]{27})", text)
        if not found:
            raise errors.InvalidRequest(
                f"got cursor={text!r:.80}, expected the `next_cursor` of a page", param="cursor"
            )
        return cls(float(found[1]), found[2])
