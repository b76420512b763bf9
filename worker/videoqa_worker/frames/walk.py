"""Walks the pictures of a video in presentation order and stops at the one on screen.

Reads forward, and seeks where a keyframe lies between here and the target. A seek proves
itself or is taken back: it must land on a keyframe at or before the target that the
timeline knows, and the decoder must begin with that very picture. Pictures that are shown
before the keyframe are dropped, since after a seek they may lack what they refer to
(open GOPs).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from av import Packet, VideoFrame
from av.error import FFmpegError
from av.video.stream import VideoStream
from videoqa.errors import VideoTooLarge

from videoqa_worker.frames.container import OpenVideo, open_video
from videoqa_worker.frames.limits import FrameLimits
from videoqa_worker.frames.timeline import Timeline
from videoqa_worker.frames.watch import Watch

__all__ = ["Shown", "Walk"]

_SEEK_ATTEMPTS = 4
"""Each one keyframe earlier. Transport streams land late by one or two."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A decoded picture and its place."""

    picture: VideoFrame
    pts: int
    count: int | None
    """Its number if all pictures before it were decoded too."""
    exact: bool


class Walk:
    """Holds the open file; a context manager."""

    def __init__(self, path: Path, limits: FrameLimits, watch: Watch) -> None:
        self._path, self._limits, self._watch = path, limits, watch
        self._stack = ExitStack()
        self._timeline: Timeline | None = None
        self._may_seek = True
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _open(self) -> None:
        """Starts over from the first picture."""
        self._stack.close()
        self.video: OpenVideo = self._stack.enter_context(open_video(self._path, self._limits))
        self._begin(count=0)

    def _begin(self, count: int | None) -> None:
        self._pictures = self._decode(self._packets())
        self._current: Shown | None = None
        self._next: Shown | None = None
        self._count = count
        self._damaged = False
        self._last_pts: int | None = None

    def first(self) -> VideoFrame | None:
        """The video's first picture; None if nothing decodes."""
        shown = self._peek()
        return shown.picture if shown else None

    def follow(self, timeline: Timeline) -> None:
        """From here on, times are those of the timeline."""
        self._timeline = timeline
        if timeline.stamps is not None:
            self._open()

    def at(self, tick: int) -> Shown | None:
        """The last picture with pts <= tick; ticks must not descend."""
        self._seek_near(tick)
        while (following := self._peek()) is not None and following.pts <= tick:
            self._current, self._next = following, None
        return self._current or self._next

    def ended(self) -> bool:
        """True if no picture follows the current one."""
        return self._peek() is None

    def _peek(self) -> Shown | None:
        if self._next is None:
            self._next = next(self._pictures, None)
        return self._next

    # Decoding

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        try:
            for packet in self.video.container.demux(self.video.stream):
                self._watch.tick()
                if packet.is_corrupt:  # cut off by the end of the file
                    self._damaged = True
                    continue
                yield packet
        except FFmpegError:
            self._damaged = True  # an unreadable rest counts as the end of the file

    def _decode(self, packets: Iterator[Packet[VideoStream]]) -> Iterator[Shown]:
        for packet in packets:
            try:
                pictures = self.video.decoder.decode(packet)
            except FFmpegError as error:
                self._refuse_growth(error)
                self._damaged = True
                continue
            if packet.is_keyframe and not packet.is_corrupt:
                self._damaged = False
            for picture in pictures:
                shown = self._place(picture)
                if shown is not None:
                    yield shown

    def _place(self, picture: VideoFrame) -> Shown | None:
        count, pts = self._count, picture.pts
        if self._count is not None:
            self._count += 1
        stamps = self._timeline.stamps if self._timeline else None
        if stamps is not None and count is not None:
            pts = stamps[count] if count < len(stamps) else None
        if pts is None and self._timeline is None:
            pts = 0  # only asked whether a first picture exists
        if pts is None or (self._last_pts is not None and pts <= self._last_pts):
            self._damaged = True
            return None
        self._last_pts = pts
        trusted = self._timeline is None or self._timeline.trusted
        exact = trusted and not self._damaged and not picture.is_corrupt
        return Shown(picture, pts, count, exact)

    def _refuse_growth(self, error: FFmpegError) -> None:
        """A picture above `max_pixels` midway leaves the decoder without a size."""
        if self.video.decoder.width == 0:
            raise VideoTooLarge(
                f"a picture midway is larger than {self._limits.max_pixels} pixels; "
                "scale the video down before"
            ) from error

    # Seeking

    def _seek_near(self, tick: int) -> None:
        here = self._peek()
        if self._timeline is None or not self._may_seek or here is None:
            return
        keys = self._timeline.keys_until(tick)
        if not keys or keys[-1] <= here.pts:
            return
        for key in reversed(keys[-_SEEK_ATTEMPTS:]):
            if key <= here.pts:
                break
            if self._seek(key, tick):
                return
        # From here on the file is read forward, from its start: slower, and right.
        self._may_seek = False
        self._open()

    def _seek(self, key: int, tick: int) -> bool:
        try:
            self.video.container.seek(key, stream=self.video.stream, backward=True)
        except FFmpegError:
            return False
        self.video.decoder.flush_buffers()
        self._begin(count=None)
        packets = self._packets()
        landed = next((p for p in packets if p.is_keyframe and p.pts is not None), None)
        if landed is None or landed.pts is None or landed.pts > tick or not self._knows(landed):
            return False
        self._pictures = self._decode(_chain(landed, packets))
        while (shown := self._peek()) is not None and shown.pts < landed.pts:
            self._next = None
        return shown is not None and shown.pts == landed.pts and bool(shown.picture.key_frame)

    def _knows(self, packet: Packet[VideoStream]) -> bool:
        table = self._timeline.table if self._timeline else None
        return table is None or table.sizes.get(packet.pts or 0) == packet.size


def _chain(
    first: Packet[VideoStream], rest: Iterator[Packet[VideoStream]]
) -> Iterator[Packet[VideoStream]]:
    yield first
    yield from rest
