"""Converts decoded pictures to RGB: by FFmpeg's scaler, or for HDR and wide primaries by a tone mapper."""

from __future__ import annotations

from dataclasses import replace

from av import VideoFrame

from videoqa.contract import DynamicRange, Warn
from videoqa_worker.frames.picture.colour.colours import (
    BT2020,
    FOREIGN_TRANSFERS,
    IPT_MATRIX,
    LIMITED_RANGE,
    PQ,
    UNSPECIFIED,
    Colours,
)
from videoqa_worker.frames.picture.colour.matrices import choose_untagged_matrix, name_matrix
from videoqa_worker.frames.picture.colour.scaler import Scaler
from videoqa_worker.frames.picture.colour.tone_mapping import ToneMapper
from videoqa_worker.settings import HdrMode

__all__ = ["ColourConverter"]


_DOLBY_APPROXIMATED = Warn(
    code="dolby_vision_approximated",
    message="the video is Dolby Vision without a base that other players show (profile 5 or 10.0): its pictures were "
    "mapped to SDR without the adjustments that it carries for each scene, so colours and brightness are not exact; "
    "convert the video to HDR10 or BT.709 for exact ones",
)


class ColourConverter:
    """Converts the pictures of one video to rgb24 for an SDR display with BT.709's primaries."""

    def __init__(
        self,
        declared: Colours | None = None,
        hdr: HdrMode = "tonemap",
        *,
        is_dolby_ipt: bool = False,
    ) -> None:
        """
        Arguments:
            declared: the colour tags of the container, for streams that have none.
            hdr: off: HDR is converted as if it were SDR, with a warning.
            is_dolby_ipt: the video is Dolby Vision whose pictures are IPT-PQ-C2, whatever their tags are.
        """
        self._declared, self._hdr, self._is_dolby_ipt = declared, hdr, is_dolby_ipt
        self._scaler = Scaler()
        self._mapper: ToneMapper | None = None
        self._foreign_transfer: int | None = None
        self.dynamic_range: DynamicRange = "sdr"
        """That of the pictures so far: HDR if one of them is."""

    @property
    def tone_mapped(self) -> bool:
        """True if the pictures are HDR and were mapped to SDR."""
        return self.dynamic_range != "sdr" and self._hdr == "tonemap"

    @property
    def warnings(self) -> tuple[Warn, ...]:
        """Warnings about the colours of the pictures so far."""
        found = self._scaler.warnings
        if self._mapper is not None and self._mapper.approximated is not None and not found:
            found = (_warn_of_approximation(self._mapper.approximated),)
        if self._foreign_transfer is not None and not found:
            found = (_warn_of_transfer(self._foreign_transfer),)
        if self.dynamic_range == "sdr":
            return found
        if self.tone_mapped:
            return (*found, _DOLBY_APPROXIMATED) if self._is_dolby_ipt else found
        message = (
            f"the video is HDR ({self.dynamic_range.upper()}) and its pictures were not mapped to SDR, so they "
            "are pale and dark; set the worker's VIDEOQA_HDR=tonemap for right ones"
        )
        return (*found, Warn(code="hdr_not_mapped", message=message))

    def convert(
        self,
        picture: VideoFrame,
        size: tuple[int, int] | None = None,
        *,
        with_alpha: bool = False,
    ) -> VideoFrame:
        """Returns the picture as rgb24, or rgba; in this width and height, if that can be done in the same pass.

        Raises:
            DecodingFailed: FFmpeg refuses the picture. MemoryError.
        """
        colours = Colours.find(picture, self._declared)
        if self._is_dolby_ipt:
            colours = _use_dolby_ipt(picture, colours)
        if colours.transfer in FOREIGN_TRANSFERS:
            self._foreign_transfer = colours.transfer
        is_hdr = colours.dynamic_range != "sdr"
        if is_hdr:
            self.dynamic_range = colours.dynamic_range
        if not (self._hdr == "tonemap" if is_hdr else colours.is_wide):
            return self._scaler.convert(picture, size, with_alpha=with_alpha)
        if colours.is_wide and colours.matrix == UNSPECIFIED:
            colours = replace(colours, matrix=choose_untagged_matrix(picture))
        if self._mapper is None:
            self._mapper = ToneMapper()
        mapped = self._mapper.convert(picture, colours)
        return self._add_alpha(mapped, picture) if with_alpha else mapped

    def _add_alpha(self, mapped: VideoFrame, picture: VideoFrame) -> VideoFrame:
        rgba = self._scaler.convert(picture, with_alpha=True).to_ndarray()
        rgba[:, :, :3] = mapped.to_ndarray()
        return VideoFrame.from_ndarray(rgba, format="rgba")


def _use_dolby_ipt(picture: VideoFrame, colours: Colours) -> Colours:
    """Returns the colours of Dolby Vision's own signal: full range, unless the stream tells another."""
    is_limited = int(picture.color_range) == LIMITED_RANGE
    return replace(
        colours,
        transfer=PQ,
        primaries=BT2020,
        matrix=IPT_MATRIX,
        is_full_range=colours.is_full_range or not is_limited,
    )


def _warn_of_transfer(transfer: int) -> Warn:
    return Warn(
        code="colours_approximated",
        message=f"the video's brightness has transfer {transfer} ({FOREIGN_TRANSFERS[transfer]}), which was shown as "
        "it is stored, so it is not exact; convert the video to BT.709 for exact colours",
    )


def _warn_of_approximation(colours: Colours) -> Warn:
    return Warn(
        code="colours_approximated",
        message=f"the video's colours have matrix coefficients {colours.matrix} ({name_matrix(colours.matrix)}), "
        f"primaries {colours.primaries} and transfer {colours.transfer}, for which the converter has no formulas: "
        "those of BT.2020 were used, so colours are not exact; convert the video to BT.709 for exact ones",
    )
