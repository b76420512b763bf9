"""FFmpeg's scaler: decoded pictures to RGB, by the matrix of their tags or the nearest that it has."""

from __future__ import annotations

from av import VideoFrame
from av.video.reformatter import VideoReformatter

from videoqa.contract import Warn
from videoqa.errors import DecodingFailed
from videoqa_worker.frames.library_failures import LIBRARY_FAILURES
from videoqa_worker.frames.picture.colour.colours import RGB_MATRIX, UNSPECIFIED, UNSPECIFIED_RANGE
from videoqa_worker.frames.picture.colour.matrices import (
    choose_untagged_matrix,
    find_nearest_matrix,
    has_luma,
    name_matrix,
)

__all__ = ["Scaler"]


class Scaler:
    """Converts the pictures of one video to rgb24 or rgba.

    One for all pictures of a video, since creating the scaler takes 0.6 ms at 1080p.
    """

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None
        self._format = "rgb24"
        self._approximated: str | None = None

    @property
    def warnings(self) -> tuple[Warn, ...]:
        """A warning if the colours of a picture so far were converted by another matrix or range."""
        if self._approximated is None:
            return ()
        return (Warn(code="colours_approximated", message=self._approximated),)

    def convert(
        self,
        picture: VideoFrame,
        size: tuple[int, int] | None = None,
        *,
        with_alpha: bool = False,
    ) -> VideoFrame:
        """Returns the picture as rgb24 or, with alpha, as rgba, in this width and height; by default in its own.

        Scaling in the same pass takes half the time of scaling the RGB picture.

        Raises:
            DecodingFailed: FFmpeg's scaler refuses the picture. MemoryError.
        """
        self._size, self._format = size, "rgba" if with_alpha else "rgb24"
        try:
            if has_luma(picture):
                if picture.colorspace == RGB_MATRIX:
                    return self._approximate(picture, ValueError("it is not stored as RGB"))
                if picture.colorspace == UNSPECIFIED:
                    picture.colorspace = choose_untagged_matrix(picture)
            return self._reformat(picture)
        except LIBRARY_FAILURES as error:
            if isinstance(error, MemoryError):
                raise
            return self._approximate(picture, error)

    def _reformat(self, picture: VideoFrame) -> VideoFrame:
        width, height = self._size or (picture.width, picture.height)
        return self._reformatter.reformat(picture, width, height, format=self._format, threads=1)

    def _approximate(self, picture: VideoFrame, error: Exception) -> VideoFrame:
        """Converts by the nearest matrix and range that the scaler has."""
        matrix, colour_range = picture.colorspace, picture.color_range
        nearest = find_nearest_matrix(picture)
        tries = [
            (nearest, colour_range),
            (matrix, UNSPECIFIED_RANGE),
            (nearest, UNSPECIFIED_RANGE),
            (UNSPECIFIED, UNSPECIFIED_RANGE),
        ]
        for other_matrix, other_range in tries:
            picture.colorspace, picture.color_range = other_matrix, other_range
            try:
                rgb = self._reformat(picture)
            except LIBRARY_FAILURES as again:
                if isinstance(again, MemoryError):
                    raise
            else:
                self._approximated = (
                    f"the video's colours have matrix coefficients {matrix} ({name_matrix(matrix)}) and range "
                    f"{colour_range}, which the converter does not have: the nearest that it has were "
                    "used, so colours are not exact; convert the video to BT.709 for exact ones"
                )
                return rgb
        raise DecodingFailed(
            f"got pictures of format {picture.format.name} with matrix coefficients {matrix} that "
            f"cannot be converted to RGB ({error}); encode the video again, as yuv420p for example"
        ) from error
