"""ETags: tags of answers, and the ones that a caller has already."""

from __future__ import annotations

import hashlib

__all__ = ["has_tag", "make_tag"]


def make_tag(data: bytes) -> str:
    """Returns the tag of an answer with these bytes."""
    return f'"{hashlib.sha256(data).hexdigest()[:32]}"'


def has_tag(tag: str, if_none_match: str | None) -> bool:
    """Tells if the header `If-None-Match` names a tag: the caller has this answer."""
    had = [one.strip().removeprefix("W/") for one in (if_none_match or "").split(",")]
    return tag in had or had == ["*"]
