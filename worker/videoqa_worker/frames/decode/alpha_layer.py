"""The alpha layer of VP8 and VP9 in Matroska and WebM, which is a video of its own beside the packets.

FFmpeg's decoders leave it out, and those of libvpx do not tell keyframes. Here a second decoder gets it.
"""

from __future__ import annotations

from typing import Final, cast

import av
from av import Packet, VideoFrame
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext

from videoqa_worker.frames.container.demuxer import OpenVideo
from videoqa_worker.frames.library_failures import LIBRARY_FAILURES

__all__ = ["AlphaLayer"]

_CODECS = ("vp8", "vp9")
_ADDITION: Final = "matroska_block_additional"
_ALPHA_ID = (1).to_bytes(8, "big")
"""BlockAddID of alpha (RFC 9559, 5.1.3.5.2.3), before the layer's packet."""


class AlphaLayer:
    """Decodes the alpha layer of one run of packets."""

    def __init__(self, video: OpenVideo) -> None:
        self._may_exist = video.decoder.name in _CODECS
        self._codec, self._limit = video.decoder.name, video.limits.max_pixels
        self._decoder: VideoCodecContext | None = None

    def decode(self, packet: Packet[Stream]) -> tuple[list[VideoFrame], bool]:
        """Returns the pictures of the layer that belong to this packet, and False if it could not be decoded."""
        if not self._may_exist or not packet.has_sidedata(_ADDITION):
            return [], True
        addition = bytes(packet.get_sidedata(_ADDITION))
        if addition[:8] != _ALPHA_ID:
            return [], True
        layer: Packet[Stream] = Packet(addition[8:])
        layer.pts, layer.dts = packet.pts, packet.dts
        if packet.time_base is not None:
            layer.time_base = packet.time_base
        try:
            return self._open().decode(layer), True
        except LIBRARY_FAILURES as error:
            if isinstance(error, MemoryError):
                raise
            return [], False

    def _open(self) -> VideoCodecContext:
        if self._decoder is None:
            decoder = cast("VideoCodecContext", av.CodecContext.create(self._codec, "r"))
            decoder.thread_type, decoder.thread_count = "NONE", 1
            decoder.options = {"max_pixels": str(self._limit)}
            self._decoder = decoder
        return self._decoder
