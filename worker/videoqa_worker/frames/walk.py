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
from dataclasses import dataclass, replace
from errno import EINVAL
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self

from av import Packet, VideoFrame
from av.error import FFmpegError
from av.stream import Stream

from videoqa.errors import PictureTooLarge
from videoqa_worker.frames.container import OpenVideo, open_video, packets
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
    after_loss: bool = False
    """Something before it could not be decoded, so the one before stays on screen too long."""


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
        self._gop_start: int | None = None
        self._damaged = self._damaged_before = False
        """Something of this GOP, of the one before, could not be decoded."""
        self._lost = False
        """The same, since the last picture."""
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
        if self._current is not None and following is not None and following.after_loss:
            return replace(self._current, exact=False)
        return self._current or self._next

    def ended(self) -> bool:
        """True if no picture follows the current one."""
        return self._peek() is None

    def _peek(self) -> Shown | None:
        if self._next is None:
            self._next = next(self._pictures, None)
        return self._next

    # Decoding

    def _packets(self) -> Iterator[Packet[Stream]]:
        try:
            for packet in packets(self.video.container, self.video.stream):
                self._watch.tick()
                yield packet
        except FFmpegError:
            self._lose()  # an unreadable rest counts as the end of the file

    def _decode(self, source: Iterator[Packet[Stream]]) -> Iterator[Shown]:
        for packet in source:
            if packet.is_keyframe and not self._by_count:
                self._gop_start = packet.pts
                self._damaged_before, self._damaged = self._damaged, False
            yield from self._placed(packet)
        yield from self._placed(None)  # what the decoder still holds back

    def _placed(self, packet: Packet[Stream] | None) -> Iterator[Shown]:
        try:
            pictures = self.video.decoder.decode(packet)
        except FFmpegError as error:
            self._refuse_growth(error)
            self._lose()
            return
        for picture in pictures:
            shown = self._place(picture)
            if shown is not None:
                yield shown

    def _place(self, picture: VideoFrame) -> Shown | None:
        """None for a picture that cannot be used: cut off, or without a time."""
        count, pts = self._count, picture.pts
        if self._count is not None:
            self._count += 1
        stamps = self._timeline.stamps if self._timeline else None
        if stamps is not None and count is not None:
            pts = stamps[count] if count < len(stamps) else None
        if pts is None and self._timeline is None:
            pts = 0  # only asked whether a first picture exists
        if picture.is_corrupt or pts is None or self._goes_back(pts):
            self._lose()
            return None
        self._last_pts = pts
        trusted = self._timeline is None or self._timeline.trusted
        of_before = self._gop_start is not None and pts < self._gop_start
        damaged = self._damaged_before if of_before else self._damaged
        shown = Shown(picture, pts, count, trusted and not damaged, self._lost)
        self._lost = False
        return shown

    def _goes_back(self, pts: int) -> bool:
        return self._last_pts is not None and pts <= self._last_pts

    def _lose(self) -> None:
        self._damaged = self._lost = True
        if not self._by_count:
            self._count = None

    @property
    def _by_count(self) -> bool:
        return self._timeline is not None and self._timeline.stamps is not None

    def _refuse_growth(self, error: FFmpegError) -> None:
        """H.264 keeps the size that it refused, other decoders keep none."""
        decoder, limit = self.video.decoder, self._limits.max_pixels
        refused = decoder.width == 0 and error.errno == EINVAL
        if refused or decoder.width * decoder.height > limit:
            raise PictureTooLarge(
                f"a picture of the video has more than {limit} pixels; scale the video down before"
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
        source = self._packets()
        landed = next((p for p in source if p.is_keyframe and p.pts is not None), None)
        if landed is None or landed.pts is None or landed.pts > tick or not self._knows(landed):
            return False
        self._pictures = self._decode(chain([landed], source))
        while (shown := self._peek()) is not None and shown.pts < landed.pts:
            self._next = None
        return shown is not None and shown.pts == landed.pts and bool(shown.picture.key_frame)

    def _knows(self, packet: Packet[Stream]) -> bool:
        table = self._timeline.table if self._timeline else None
        return table is None or table.sizes.get(packet.pts or 0) == packet.size
