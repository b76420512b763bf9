"""Scans the packets of a video into a table, in one pass that decodes nothing.

This is needed where the container's header does not list the pictures' times (MPEG-TS, Matroska,
fragmented MP4, ...). Knows nothing of targets.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from contextlib import suppress
from dataclasses import dataclass, field

from av import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from videoqa_worker.frames.budget import DecodeBudget
from videoqa_worker.frames.container.demuxer import OpenVideo, read_packets
from videoqa_worker.frames.library_failures import LIBRARY_FAILURES

__all__ = ["PacketTable", "find_last_pts", "is_shown", "scan_packets"]

_VP8_SHOW_FRAME = 0x10
"""The bit that marks a shown frame (RFC 6386, 9.1); without it the packet is a hidden reference."""


@dataclass
class PacketTable:
    """The packets of a video stream; times are ticks of its time base."""

    pts: array[int] = field(default_factory=lambda: array("q"))
    """Presentation times, ascending."""
    sizes: dict[int, int] = field(default_factory=dict)
    """Bytes of the packet at a pts, to check that a seek landed on that very packet."""
    keyframes: list[int] = field(default_factory=list)
    """Presentation times of keyframes, ascending."""
    dts: array[int] = field(default_factory=lambda: array("q"))
    """Decoding times in file order, where known."""
    count: int = 0
    """Number of pictures, with or without times."""
    complete: bool = True
    """True if every picture has a pts of its own, and decoding times never go back."""
    cut: int = 0
    """Number of packets that an edit list cuts off."""
    last_duration: int = 0
    """Duration of the last picture; 0 if the container does not tell."""
    reached_s: float = 0.0
    """The end of the last packet of any stream, sound included."""

    def rank(self, pts: int) -> int | None:
        """Returns the picture's number in presentation order; None if no picture has this pts."""
        at = bisect_left(self.pts, pts)
        return at if at < len(self.pts) and self.pts[at] == pts else None


def scan_packets(video: OpenVideo, budget: DecodeBudget) -> PacketTable:
    """Reads the whole file once, in a container of its own."""
    table = PacketTable()
    video.file.ensure([(0, video.file.size_bytes)])
    with video.reopen(only_video=False) as fresh:
        try:
            for packet in read_packets(fresh.container):
                budget.tick()
                _add_packet(table, packet, fresh.stream)
        except LIBRARY_FAILURES:
            table.complete = False  # the rest is unreadable; the packets so far are kept
    _sort_table(table)
    return table


def find_last_pts(video: OpenVideo, last_key: int, budget: DecodeBudget) -> int:
    """Returns the last picture's pts; reads from the last keyframe on, as far as possible."""
    last = last_key
    with video.reopen() as fresh, suppress(*LIBRARY_FAILURES):
        fresh.container.seek(last_key, stream=fresh.stream, backward=True)
        for packet in read_packets(fresh.container, fresh.stream):
            budget.tick()
            if packet.pts is not None and not packet.is_discard:
                last = max(last, packet.pts)
    return last


def _add_packet(table: PacketTable, packet: Packet[Stream], stream: VideoStream) -> None:
    if packet.size == 0:
        return
    time = packet.pts if packet.pts is not None else packet.dts
    if time is not None:
        end_s = float((time + (packet.duration or 0)) * packet.time_base)
        table.reached_s = max(table.reached_s, end_s)
    if packet.stream_index != stream.index or _is_hidden(packet, stream):
        return
    if packet.dts is not None:
        table.complete &= not table.dts or packet.dts >= table.dts[-1]
        table.dts.append(packet.dts)
    if packet.is_discard:  # an edit list cuts it off
        table.cut += 1
        return
    table.count += 1
    if packet.pts is None or packet.pts in table.sizes:
        table.complete = False
        return
    if not table.pts or packet.pts > max(table.pts[-4:]):
        table.last_duration = packet.duration or 0
    table.pts.append(packet.pts)
    table.sizes[packet.pts] = packet.size
    if packet.is_keyframe:
        table.keyframes.append(packet.pts)


def is_shown(packet: Packet[Stream], stream: VideoStream) -> bool:
    """Returns True if the packet's picture is ever on screen."""
    return not packet.is_discard and not _is_hidden(packet, stream)


def _is_hidden(packet: Packet[Stream], stream: VideoStream) -> bool:
    return stream.codec_context.name == "vp8" and not bytes(packet)[0] & _VP8_SHOW_FRAME


def _sort_table(table: PacketTable) -> None:
    table.pts = array("q", sorted(table.pts))
    table.keyframes.sort()
