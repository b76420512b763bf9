"""FolderWalker: the files below folders and behind globs, in a fixed order, each once.

A symbolic link to a folder is not followed below a SOURCE, since it may lead back to a folder above or
to videos that are listed already; it is counted. A folder that cannot be read is an error, or counted.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from videoqa.bulk.manifest.names import decode_path
from videoqa.errors import InvalidRequest

__all__ = ["FolderWalker", "fixed_folder"]


_MAX_SUFFIX, _MAX_SUFFIXES = 16, 100


class FolderWalker:
    """Lists files, and counts what it left out."""

    def __init__(self, *, skip_unreadable: bool = False) -> None:
        """`skip_unreadable`: folders that cannot be read are left out and counted."""
        self._skips = skip_unreadable
        self.begin()

    def begin(self) -> None:
        """Begins to count anew: the same folders are walked again."""
        self._links: set[Path] = set()
        self._unreadable: set[Path] = set()
        self._others: Counter[str] = Counter()

    @property
    def links(self) -> int:
        """Number of symbolic links to folders that were not followed."""
        return len(self._links)

    @property
    def unreadable(self) -> int:
        """Number of folders that could not be read."""
        return len(self._unreadable)

    @property
    def others(self) -> dict[str, int]:
        """Number of files that are no videos by their names, by suffix, the most frequent first."""
        return dict(self._others.most_common())

    def count_other(self, name: str) -> None:
        """Counts a file that is left out since its suffix is none of a video."""
        suffix = PurePath(name).suffix.lower()
        if len(suffix) > _MAX_SUFFIX or (
            suffix not in self._others and len(self._others) >= _MAX_SUFFIXES
        ):
            suffix = "other"
        self._others[suffix or "none"] += 1

    def walk(self, folder: Path) -> Iterator[Path]:
        """Yields the files of a folder and of those below it, the names of each folder in order.

        Raises:
            InvalidRequest: a folder cannot be read.
        """
        folders, files = self._list_folder(folder)
        yield from files
        for each in folders:
            yield from self.walk(each)

    def expand(self, pattern: str) -> Iterator[Path]:
        """Yields the files that a glob matches; `**` stands for any folders, `*` for no hidden ones.

        Raises:
            InvalidRequest: a folder cannot be read.
        """
        fixed = fixed_folder(pattern)
        parts = Path(pattern).parts[len(fixed.parts) :]
        found = self._expand(fixed, parts) if fixed.is_dir() else iter(())
        # A path may match in several ways if there are several `**`.
        return iter(dict.fromkeys(found)) if parts.count("**") > 1 else found

    def _expand(self, folder: Path, parts: Sequence[str]) -> Iterator[Path]:
        part, *rest = parts
        if part == "**" and not rest:
            rest = ["*"]
        if part == "**":
            yield from self._expand(folder, rest)
        elif not rest and not glob.has_magic(part):
            if (folder / part).is_file():
                yield folder / part
            return
        folders, files = self._list_folder(folder)
        if not rest:
            yield from (path for path in files if _matches(path.name, part))
            return
        for each in folders:
            if part == "**" and not each.name.startswith("."):
                yield from self._expand(each, parts)
            elif part != "**" and _matches(each.name, part):
                yield from self._expand(each, rest)

    def _list_folder(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Returns the folders in a folder, and its files, by their names."""
        folders, files = [], []
        try:
            with os.scandir(folder) as found:
                for entry in sorted(found, key=lambda entry: os.fsencode(entry.name)):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(folder / entry.name)
                    elif entry.is_symlink() and os.path.isdir(folder / entry.name):
                        self._links.add(folder / entry.name)
                    else:
                        files.append(folder / entry.name)
        except OSError as error:
            if not self._skips:
                raise InvalidRequest(
                    f"can't read the folder {decode_path(folder)}: {error.strerror or error}; correct "
                    "that, or leave such folders out with --skip-unreadable",
                    param="source",
                ) from error
            self._unreadable.add(folder)
        return folders, files


def fixed_folder(pattern: str) -> Path:
    """Returns the folder above a glob's first wildcard."""
    folder = Path(pattern)
    while glob.has_magic(os.fspath(folder)):
        folder = folder.parent
    return folder


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))
