"""Odd but valid kinds of video: the rows of the accuracy table, by name."""

from kinds.broken import BROKEN
from kinds.codecs import CODECS
from kinds.containers import CONTAINERS
from kinds.formats import FORMATS
from kinds.hdr import HDR
from kinds.kind import Kind
from kinds.shapes import SHAPES
from kinds.tagged import TAGGED
from kinds.timing import TIMING
from kinds.transparent import TRANSPARENT

__all__ = ["KINDS", "Kind"]

KINDS: dict[str, Kind] = {
    **CODECS,
    **CONTAINERS,
    **FORMATS,
    **TIMING,
    **SHAPES,
    **TRANSPARENT,
    **HDR,
    **TAGGED,
    **BROKEN,
}
