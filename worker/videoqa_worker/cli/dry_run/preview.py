"""Preview: thumbnails of the frames that a job would take, on one sheet, before anything is asked.

The frames are those of the worker's own sampler. They are scaled down in the decoding processes, one after the other,
so a preview takes the memory of one frame there and of its thumbnails here.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from videoqa.contract import FrameUsed, Warn
from videoqa_worker.frames import Frame, make_thumbnail
from videoqa_worker.job.sheet import choose_tile, draw_tiles

__all__ = ["MOST_FETCHED_BYTES", "MOST_FRAMES", "MOST_SIDE", "Preview", "TooLarge"]

MOST_SIDE = 320
"""Pixels of a thumbnail's longer side."""
MOST_FRAMES = 64
"""Most thumbnails; of more frames every second, fourth, ... has one, and a video in segments ends with these."""
MOST_FETCHED_BYTES = 256 << 20
"""Most bytes that are fetched of one input."""


class TooLarge(Exception):
    """Raised when more than MOST_FETCHED_BYTES would have to be fetched."""


@dataclass
class Preview:
    """The frames of one request; used by one thread."""

    complete: bool = True
    """False: there are more segments."""
    warnings: list[Warn] = field(default_factory=list)
    _shown: list[tuple[FrameUsed, Frame]] = field(default_factory=list)
    _stride: int = 1
    _count: int = 0

    def has_room(self, count: int) -> bool:
        """Tells if so many further frames would all have thumbnails."""
        return self._count + count <= MOST_FRAMES

    def add(self, number: int, frames: Sequence[Frame], warnings: Sequence[Warn]) -> None:
        """Adds frames of the input with this number."""
        where = f"inputs.{number}"
        self.warnings += [
            each.model_copy(update={"param": each.param or where}) for each in warnings
        ]
        for frame in frames:
            if self._count % self._stride == 0:
                self._shown.append((_describe(number, frame), frame))
            self._count += 1
            if len(self._shown) > MOST_FRAMES:
                self._stride *= 2
                del self._shown[1::2]

    def draw(self) -> dict[str, Any]:
        """Returns the frames and their sheet, as the gateway's answer has them; nothing if there are no frames."""
        if not self._shown:
            return {}
        pixels = [frame.pixels for _, frame in self._shown]
        size = choose_tile(pixels, len(pixels))
        tiles = [(n, make_thumbnail(each, *size)) for n, each in enumerate(pixels)]
        data, layout = draw_tiles(tiles, "videoqa preview")
        return {
            "shown": [used.model_dump(mode="json") for used, _ in self._shown],
            "taken": self._count,
            "complete": self.complete,
            "warnings": [each.model_dump(mode="json") for each in self._pick_warnings()],
            "sheet": layout.model_dump(mode="json"),
            "jpeg": base64.b64encode(data).decode(),
        }

    def _pick_warnings(self) -> Iterator[Warn]:
        """Yields each warning once: those of segments are alike."""
        seen: set[tuple[str, str | None]] = set()
        for each in self.warnings:
            if (each.code, each.param) not in seen:
                seen.add((each.code, each.param))
                yield each


def _describe(number: int, frame: Frame) -> FrameUsed:
    return FrameUsed(
        input=number,
        index=frame.index,
        pts_s=round(frame.pts_s, 6),
        asked_s=round(frame.asked_s, 6),
        exact=frame.exact,
    )
