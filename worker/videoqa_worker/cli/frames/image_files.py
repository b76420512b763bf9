"""Files of `videoqa frames`: a PNG for each frame, and the contact sheet.

Four guards, each for one mistake of a user:

- outputs are checked before anything is fetched: a film takes minutes, and then has nowhere to go;
- an earlier run's frames are deleted by their names: else a folder mixes two runs;
- a sheet has a mark inside, and no other file is replaced: `--sheet clip.jpg` may be a slip;
- files are renamed when whole: a frame cut off by Ctrl-C or a full disk would pass for the video's.
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
    """Checks that frames can be written into the folder.

    Raises:
        OutputDenied: it is a file, or has no write access.
    """
    near = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not near.is_dir():
        raise OutputDenied(f"{near} is not a folder, expected one to write into", param="out")
    if not os.access(near, os.W_OK | os.X_OK):
        raise OutputDenied(f"{near} can't be written to; name another folder", param="out")


def check_sheet(path: Path) -> None:
    """Checks that a sheet can be written to the path.

    Raises:
        InvalidRequest: the suffix is not that of a JPEG or PNG.
        OutputDenied: no write access, or a file that is not a sheet lies there.
    """
    if path.suffix.lower() not in _KINDS:
        raise InvalidRequest(
            f"got a sheet named {path.name!r}, expected a name that ends in .jpg, .jpeg or .png",
            param="sheet",
        )
    check_folder(path.parent)
    if path.is_dir():
        raise OutputDenied(f"{path} is a folder, expected the name of a file", param="sheet")
    if path.exists() and not _is_our_sheet(path):
        raise OutputDenied(
            f"{path} exists and is not a sheet of this command; name another file, or delete it",
            param="sheet",
        )


def write_frames(folder: Path, frames: Sequence[Frame]) -> list[Path]:
    """Writes a PNG for each frame, since it keeps every pixel as the model gets it.

    Names sort in the order of time: frame-000-12.480s.png is the first frame, shown from
    12.480 s on.

    Raises:
        OutputUnavailable: the folder can't be written.
    """
    paths = [
        folder / f"frame-{number:03d}-{frame.pts_s:.3f}s.png" for number, frame in enumerate(frames)
    ]
    with _translate_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path, frame in zip(paths, frames, strict=True):
            _write_whole(path, partial(_save_frame, frame))
        for old in folder.iterdir():
            if _OURS.fullmatch(old.name) and old not in paths:
                old.unlink()
    return paths


def write_sheet(path: Path, sheet: Image.Image) -> None:
    """Writes the picture with the mark of this command.

    Raises:
        OutputUnavailable: the folder can't be written.
    """

    def save(part: Path) -> None:
        if _KINDS[path.suffix.lower()] == "PNG":
            info = PngInfo()
            info.add_text("Software", _MARK)
            sheet.save(part, "PNG", pnginfo=info)
        else:
            sheet.save(part, "JPEG", quality=90, comment=_MARK)

    with _translate_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(path, save)


def _save_frame(frame: Frame, part: Path) -> None:
    # Level 1: 0.29 s and 5.0 MB for eight pictures of 1280x720; the default 0.93 s and 4.1 MB.
    Image.fromarray(frame.pixels).save(part, "PNG", compress_level=1)


def _write_whole(path: Path, save: Callable[[Path], None]) -> None:
    """Saves to a temporary name and renames."""
    part = path.with_name(f".{path.name}.part")
    try:
        save(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _translate_errors(folder: Path) -> Iterator[None]:
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
