"""Regular expressions of answers: what no worker could serve, found without compiling them."""

from __future__ import annotations

import re

__all__ = ["MOST_PATTERN", "MOST_REPEATS", "find_pattern_mistake"]

MOST_PATTERN = 4096
"""Characters of a pattern."""
MOST_REPEATS = 1000
"""Largest bound of a repetition: a worker spends 14 ms on one mask of `a{10000}`, and 300 ms on `a{100000}`."""
_MOST_GROUPS = 50
"""Groups in each other."""
_UNSERVED = {
    "(?=": "look-ahead", "(?!": "look-ahead", "(?<=": "look-behind", "(?<!": "look-behind", "(?>": "an atomic group",
}  # fmt: skip
_PIECES = re.compile(
    r"\\[\s\S]|\[\^?\]?(?:\\[\s\S]|[^\]\\])*+(?:\]|\Z)|\(\?(?:<?[=!]|>)|\{(\d+)(?:,(\d*))?\}|[()]"
)
"""Parts of a pattern that decide here: escapes, classes, groups and repetitions."""


def find_pattern_mistake(pattern: str) -> str | None:
    """Returns what no worker could serve in a pattern; None if there is nothing.

    A worker's library finds the rest: it alone knows the syntax.
    """
    if len(pattern) > MOST_PATTERN:
        return f"got a pattern of {len(pattern)} characters, expected at most {MOST_PATTERN}"
    depth = deepest = 0
    for found in _PIECES.finditer(pattern):
        piece = found[0]
        if piece in _UNSERVED:
            return f"got {_UNSERVED[piece]}, expected a regular expression without it"
        if re.match(r"\\[1-9]|\\k<", piece):
            return "got a back reference, expected a regular expression without it"
        if any(int(bound[:9]) > MOST_REPEATS for bound in found.groups() if bound):
            return f"got the repetition {piece:.40}, expected bounds up to {MOST_REPEATS}"
        depth += piece.startswith("(")
        depth -= piece == ")"
        deepest = max(deepest, depth)
    if deepest > _MOST_GROUPS:
        return f"got {deepest} groups in each other, expected at most {_MOST_GROUPS}"
    return None
