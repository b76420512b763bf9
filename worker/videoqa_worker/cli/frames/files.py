"""Where frames and sheets are written, and what is never overwritten.

A folder's frames are those of one run: names tell which files are ours, and an earlier run's
go when new ones are there. A sheet carries a mark inside, since its name is the user's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from videoqa.errors import InvalidRequest, OutputDenied, OutputUnavailable
from videoqa_worker.frames import Frame

__all__ = ["check_folder", "check_sheet", "write_frames", "write_sheet"]

_OURS = re.compile(r"frame-\d{3}-\d+\.\d{3}s\.png")
_MARK = "videoqa frames"
_KINDS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}


def check_folder(folder: Path) -> None:
    """Before anything is fetched: whether frames can be written there.

    Raises:
        OutputDenied.
    """
    near = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not near.is_dir():
        raise OutputDenied(f"{near} is no folder, expected one to write into", param="out")
    if not os.access(near, os.W_OK | os.X_OK):
        raise OutputDenied(f"{near} may not be written to; name another folder", param="out")


def check_sheet(path: Path) -> None:
    """The same for a sheet.

    Raises:
        InvalidRequest: the name does not say which format. OutputDenied.
    """
    if path.suffix.lower() not in _KINDS:
        raise InvalidRequest(
            f"got a sheet named {path.name!r}, expected .jpg, .jpeg or .png at its end",
            param="sheet",
        )
    check_folder(path.parent)
    if path.is_dir():
        raise OutputDenied(f"{path} is a folder, expected a file's name", param="sheet")
    if path.exists() and not _is_our_sheet(path):
        raise OutputDenied(
            f"{path} exists and is no sheet of this command; name another file, or remove it",
            param="sheet",
        )


def write_frames(folder: Path, frames: Sequence[Frame]) -> list[Path]:
    """One PNG a frame, since it keeps every pixel as the model gets it.

    Names sort in the order of time: frame-000-12.480s.png is the first frame, shown from
    12.480 s on.

    Raises:
        OutputUnavailable.
    """
    paths = [
        folder / f"frame-{number:03d}-{frame.pts_s:.3f}s.png" for number, frame in enumerate(frames)
    ]
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path, frame in zip(paths, frames, strict=True):
            _put(path, partial(_save_frame, frame))
        for old in folder.iterdir():
            if _OURS.fullmatch(old.name) and old not in paths:
                old.unlink()
    return paths


def write_sheet(path: Path, sheet: Image.Image) -> None:
    """The picture, with our mark.

    Raises:
        OutputUnavailable.
    """

    def save(part: Path) -> None:
        if _KINDS[path.suffix.lower()] == "PNG":
            info = PngInfo()
            info.add_text("Software", _MARK)
            sheet.save(part, "PNG", pnginfo=info)
        else:
            sheet.save(part, "JPEG", quality=90, comment=_MARK)

    with _writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        _put(path, save)


def _save_frame(frame: Frame, part: Path) -> None:
    # Level 1: 0.29 s and 5.0 MB for eight pictures of 1280x720; the default 0.93 s and 4.1 MB.
    Image.fromarray(frame.pixels).save(part, "PNG", compress_level=1)


def _put(path: Path, save: Callable[[Path], None]) -> None:
    """Whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        save(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputUnavailable(
            f"{folder} can't be written to ({error.strerror or error}); name another folder"
        ) from error


def _is_our_sheet(path: Path) -> bool:
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as found:
            return _MARK in (found.info.get("Software"), _text(found.info.get("comment")))
    except (OSError, ValueError, SyntaxError):
        return False


def _text(comment: object) -> str | None:
    return comment.decode("utf-8", "replace") if isinstance(comment, bytes) else None
