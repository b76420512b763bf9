"""ArchiveRoot: the folder or prefix below which videos have their names, however a SOURCE spells them.

A row without a custom_id of its own gets the path of its video below the root. OUTPUT remembers the
root of its first run, so that a folder, a glob and a list name the same video alike.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Self
from urllib.parse import unquote

from videoqa.bulk.manifest.names import as_custom_id, canonical_url, local_path, short_digest
from videoqa.contract import redact_url
from videoqa.errors import InvalidRequest

__all__ = ["ArchiveRoot"]


class ArchiveRoot:
    """A folder or prefix, by its URL."""

    def __init__(self, place: str) -> None:
        """`place`: a path, or a `file://` or `s3://` URL.

        Raises:
            InvalidRequest: it is neither.
        """
        url = canonical_url(place)
        self.url = url if url.endswith("/") else url + "/"
        if not self.url.startswith(("file:///", "s3://")):
            raise InvalidRequest(
                f"got the root {redact_url(place)!r}, expected a folder or s3://bucket/prefix/",
                param="root",
            )
        self._is_local = self.url.startswith("file:")
        self._real = (
            os.path.realpath(local_path(self.url)).rstrip("/") + "/" if self._is_local else ""
        )

    @classmethod
    def above(cls, places: Sequence[str]) -> Self:
        """Returns the deepest root that all places lie below: folders, or prefixes that end in a slash."""
        if len(places) == 1 and not places[0].startswith(("http:", "https:")):
            return cls(places[0])
        for scheme in ("", "s3://"):
            if all(place.startswith(scheme or "/") for place in places):
                common = os.path.commonpath([place.removeprefix(scheme) for place in places])
                return cls(scheme + common if common else ".")
        return cls(".")

    def find_path(self, url: str) -> str | None:
        """Returns the path of a canonical URL below the root; None: it lies elsewhere."""
        if url.startswith(self.url):
            path = url[len(self.url) :]
            return unquote(path, errors="surrogateescape") if self._is_local else path
        if not (self._is_local and url.startswith("file:")):
            return None
        folder, _, name = os.fspath(local_path(url)).rpartition("/")
        real = f"{os.path.realpath(folder)}/{name}"  # perhaps another way to the same folder
        return real.removeprefix(self._real) if real.startswith(self._real) else None

    def name(self, url: str) -> str:
        """Returns the custom_id of a video without one: its path below the root, or its URL without secrets."""
        path = self.find_path(url)
        if path:
            return as_custom_id(path)
        if url.startswith("file:"):
            return as_custom_id(os.fspath(local_path(url)))
        shown = redact_url(url)
        if shown != url and not url.startswith("s3:"):
            shown += "#" + short_digest(url)
        return as_custom_id(shown if not url.startswith("s3:") else url)
