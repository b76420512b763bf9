"""The colour tags of a picture: its transfer, primaries, matrix and range (ITU-T H.273)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from av import VideoFrame

from videoqa.contract import DynamicRange

__all__ = [
    "BT601", "BT709", "BT2020", "BT2020_MATRIX", "DCI_P3", "DISPLAY_P3", "FOREIGN_TRANSFERS", "FULL_RANGE",
    "IPT_MATRIX", "LIMITED_RANGE", "PQ", "RGB_MATRIX", "SDR_TRANSFERS", "SMPTE240M", "UNSPECIFIED", "UNSPECIFIED_RANGE",
    "ColourTags", "Colours",
]  # fmt: skip

UNSPECIFIED = 2
BT709, BT601, SMPTE240M, BT2020, DCI_P3, DISPLAY_P3 = 1, 5, 7, 9, 11, 12
RGB_MATRIX, BT2020_MATRIX, IPT_MATRIX = 0, 9, 15
PQ, _HLG = 16, 18
UNSPECIFIED_RANGE, LIMITED_RANGE, FULL_RANGE = 0, 1, 2
"""FFmpeg's numbers of ranges (AVColorRange)."""
SDR_TRANSFERS = frozenset((BT709, UNSPECIFIED, 4, 5, 6, 7, 11, 12, 13, 14, 15))
"""Transfers of standard dynamic range, all of which displays show by nearly the same curve."""
FOREIGN_TRANSFERS = {
    8: "linear",
    9: "logarithmic, 100:1",
    10: "logarithmic, 316:1",
    17: "SMPTE ST 428-1",
}
"""Transfers that are far from every display's, and that are shown as they are stored."""
_WIDE_PRIMARIES = (BT2020, DCI_P3, DISPLAY_P3)


class ColourTags(Protocol):
    """The tags as PyAV names them, of a picture or a decoder."""

    @property
    def color_trc(self) -> int: ...
    @property
    def color_primaries(self) -> int: ...
    @property
    def colorspace(self) -> int: ...
    @property
    def color_range(self) -> int: ...


@dataclass(frozen=True)
class Colours:
    """The colour tags, as numbers of H.273."""

    transfer: int
    primaries: int
    matrix: int
    is_full_range: bool

    @classmethod
    def of(cls, tags: ColourTags) -> Colours:
        """Reads the tags."""
        return cls(
            int(tags.color_trc),
            int(tags.color_primaries),
            int(tags.colorspace),
            int(tags.color_range) == FULL_RANGE,
        )

    @classmethod
    def find(cls, picture: VideoFrame, container: Colours | None) -> Colours:
        """Reads a picture's tags; those that the stream does not have are its container's."""
        stream = cls.of(picture)
        if picture.format.name.startswith("yuvj"):
            stream = replace(stream, is_full_range=True)
        if container is None:
            return stream
        has_range = int(picture.color_range) != UNSPECIFIED_RANGE or stream.is_full_range
        return cls(
            _pick(stream.transfer, container.transfer),
            _pick(stream.primaries, container.primaries),
            _pick(stream.matrix, container.matrix),
            stream.is_full_range if has_range else container.is_full_range,
        )

    @property
    def dynamic_range(self) -> DynamicRange:
        """The dynamic range that the transfer stands for."""
        return "pq" if self.transfer == PQ else "hlg" if self.transfer == _HLG else "sdr"

    @property
    def is_wide(self) -> bool:
        """True for standard dynamic range in primaries that are wider than BT.709's."""
        return self.transfer in SDR_TRANSFERS and self.primaries in _WIDE_PRIMARIES

    def fill_for_hdr(self) -> Colours:
        """Returns the colours of HDR with BT.2020 where nothing is told, as nearly all HDR video has them."""
        return replace(
            self,
            primaries=BT2020 if self.primaries == UNSPECIFIED else self.primaries,
            matrix=BT2020_MATRIX if self.matrix == UNSPECIFIED else self.matrix,
        )


def _pick(stream: int, container: int) -> int:
    return container if stream == UNSPECIFIED else stream
