"""Suggestions of messages that refuse a name: the nearest known one, or all."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["suggest"]

_LONGEST = 200
"""Characters of a name beyond which none is near; the search takes time for each of them."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns `did you mean NAME?` if one of the known names is near, else `expected one of ...`."""
    names = list(known)
    near = get_close_matches(name, names, 1, cutoff=0.6) if len(name) <= _LONGEST else []
    return f"did you mean {near[0]}?" if near else f"expected one of {', '.join(names)}"
