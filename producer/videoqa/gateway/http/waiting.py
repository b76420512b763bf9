"""Times for which a caller waits for an answer: `Prefer: wait=30` (RFC 7240) and `?wait=30`."""

from __future__ import annotations

import re

from videoqa.errors import InvalidRequest

__all__ = ["MOST_WAIT_S", "parse_prefer", "parse_wait"]

MOST_WAIT_S = 120.0
"""Longest wait of one request; below the time that balancers allow."""
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?([^\s,;\"]*)", re.IGNORECASE)


def parse_wait(text: str | None, *, param: str = "wait") -> float:
    """Returns seconds, at most MOST_WAIT_S; 0 for None. Raises InvalidRequest."""
    if text is None:
        return 0.0
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?", text):
        raise InvalidRequest(
            f"got wait={text!r:.50}, expected seconds, 0 to {MOST_WAIT_S:g}", param=param
        )
    return min(float(text), MOST_WAIT_S)


def parse_prefer(header: str | None) -> float:
    """Returns the seconds of the preference `wait`, at most MOST_WAIT_S; 0 without one.

    Other preferences are ignored, and so is a wait that is no number of seconds: RFC 7240 forbids to refuse them.
    """
    match = _WAIT.search(header) if header else None
    is_number = match is not None and re.fullmatch(r"[0-9]{1,18}", match[1])
    return min(float(match[1]), MOST_WAIT_S) if match is not None and is_number else 0.0
