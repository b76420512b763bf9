"""Archives: a manifest of videos in, one result each out, resumable from the results alone."""

from videoqa.bulk.manifest import Row, checked, read_rows
from videoqa.bulk.run import Run, Summary
from videoqa.bulk.shelf import Shelf

__all__ = ["Row", "Run", "Shelf", "Summary", "checked", "read_rows"]
