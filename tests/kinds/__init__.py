"""Odd but valid kinds of video: the rows of the accuracy table, by name."""

from kinds.broken import BROKEN
from kinds.codecs import CODECS
from kinds.containers import CONTAINERS
from kinds.kind import Kind
from kinds.timing import TIMING

__all__ = ["KINDS", "Kind"]

KINDS: dict[str, Kind] = {**CODECS, **CONTAINERS, **TIMING, **BROKEN}
