"""Contact sheet: all frames in one picture, each with its time and index under it.

Uses Pillow and its bundled font alone. The font has ASCII only, so other letters of a file's name
lose their accents or become a question mark.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from videoqa_worker.frames import Frame, make_thumbnail

__all__ = ["MAX_WIDTH", "Layout", "choose_layout", "draw_sheet", "format_clock", "format_labels"]

MAX_WIDTH = 2400
"""Pixels that a wide screen or a page shows without scaling."""
_MIN_PICTURE = 160
"""Smallest width of a picture in pixels: below, its label is too small to read."""
_MIN_WIDTH = 720
"""Smallest width of the sheet in pixels, for the title."""
_GAP, _TITLE_HEIGHT, _LINE = 12, 76, 22
_BEST_RATIO = 1.8
_SLIMMEST, _WIDEST = 0.45, 4.0
"""Ratios beyond which a picture gets bars, so that one odd shape makes no endless sheet."""
_BACKGROUND, _BARS, _TEXT, _FAINT, _WARNING = "#16181d", "#000000", "#ffffff", "#aab2bf", "#ffb454"


@dataclass(frozen=True)
class Layout:
    """Sizes in pixels."""

    columns: int
    rows: int
    picture_width: int
    picture_height: int

    @property
    def cell_height(self) -> int:
        return self.picture_height + 2 * _LINE + _GAP

    @property
    def width(self) -> int:
        return max(_MIN_WIDTH, self.columns * (self.picture_width + _GAP) + _GAP)

    @property
    def height(self) -> int:
        return self.rows * self.cell_height + _TITLE_HEIGHT + _GAP

    def corner(self, number: int) -> tuple[int, int]:
        """Returns left and top of a picture's box."""
        row, column = divmod(number, self.columns)
        left = _GAP + column * (self.picture_width + _GAP)
        return left, _TITLE_HEIGHT + row * self.cell_height


def choose_layout(count: int, width: int, height: int) -> Layout:
    """Returns the grid for `count` pictures of this size: near a screen's shape, few empty cells."""
    most = 960 if count == 1 else 640 if count <= 4 else 480
    most = max(_MIN_PICTURE, min(most, width))
    ratio = min(_WIDEST, max(_SLIMMEST, width / height))
    layouts = [_grid(count, columns, ratio, most) for columns in range(1, count + 1)]
    usable = [each for each in layouts if each.picture_width >= _MIN_PICTURE]
    return min(usable, key=lambda each: _ugliness(each, count))


def _grid(count: int, columns: int, ratio: float, most: int) -> Layout:
    picture_width = min(most, (MAX_WIDTH - _GAP) // columns - _GAP)
    rows = math.ceil(count / columns)
    return Layout(columns, rows, picture_width, max(1, round(picture_width / ratio)))


def _ugliness(layout: Layout, count: int) -> float:
    """Returns a penalty: one empty cell in eight equals an aspect ratio wrong by a factor of 1.6."""
    empty = layout.columns * layout.rows - count
    shape = abs(math.log(layout.width / layout.height / _BEST_RATIO))
    return shape + 4 * empty / (count + empty)


def draw_sheet(frames: Sequence[Frame], title: str, details: str) -> Image.Image:
    """Returns the sheet, RGB. `title` is a file's name, `details` a line about it."""
    heights, widths = zip(*(frame.pixels.shape[:2] for frame in frames), strict=True)
    layout = choose_layout(len(frames), max(widths), max(heights))
    sheet = Image.new("RGB", (layout.width, layout.height), _BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    width_px = layout.width - 2 * _GAP
    pen.text((_GAP, 10), _shorten(title, 24, width_px), fill=_TEXT, font=_font(24))
    pen.text((_GAP, 44), _shorten(details, 17, width_px), fill=_FAINT, font=_font(17))
    size = _label_size(frames, layout.picture_width)
    for number, frame in enumerate(frames):
        _paste_frame(sheet, layout, number, frame)
        _draw_label(pen, layout, number, frame, size)
    return sheet


def _paste_frame(sheet: Image.Image, layout: Layout, number: int, frame: Frame) -> None:
    left, top = layout.corner(number)
    tile = make_thumbnail(frame.pixels, layout.picture_width, layout.picture_height, fill=_BARS)
    sheet.paste(tile, (left, top))


def _draw_label(
    pen: ImageDraw.ImageDraw, layout: Layout, number: int, frame: Frame, size: int
) -> None:
    left, top = layout.corner(number)
    fills = (_TEXT, _FAINT if frame.exact else _WARNING)
    for line, (text, fill) in enumerate(zip(format_labels(frame), fills, strict=True)):
        at = (left, top + layout.picture_height + 4 + line * _LINE)
        pen.text(at, text, fill=fill, font=_font(size))


def format_labels(frame: Frame) -> tuple[str, str]:
    """Returns two lines: the time from which the frame is shown, and its index in the video."""
    time = f"{frame.pts_s:.3f} s" + (f" ({format_clock(frame.pts_s)})" if frame.pts_s >= 60 else "")
    index = "index unknown" if frame.index is None else f"index {frame.index}"
    return time, index if frame.exact else f"{index}, not exact"


def format_clock(seconds: float) -> str:
    """Returns seconds as 1:02:03, as players show them."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _label_size(frames: Sequence[Frame], width_px: int) -> int:
    """Returns the largest font size with which the longest label fits its picture's width."""
    texts = [line for frame in frames for line in format_labels(frame)]
    longest = max(texts, key=_font(18).getlength)
    return next(
        (size for size in range(18, 10, -1) if _font(size).getlength(longest) <= width_px), 10
    )


def _shorten(text: str, size: int, width_px: int) -> str:
    """Returns the text in ASCII, cut in its middle if it is too wide, so that a suffix stays."""
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    plain = plain.encode("ascii", "replace").decode()
    kept = len(plain)
    shown = plain
    while _font(size).getlength(shown) > width_px and kept > 2:
        kept -= 1
        shown = f"{plain[: (kept + 1) // 2]}...{plain[len(plain) - kept // 2 :]}"
    return shown


@cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
