"""Still pictures that are sent as videos: what they are is told by their bytes, not by their names."""

from __future__ import annotations

from collections.abc import Callable

from videoqa.contract import Sampling, Warn
from videoqa_worker.frames.container.animation import is_animated
from videoqa_worker.frames.container.sniff import identify
from videoqa_worker.frames.frame import SampledVideo
from videoqa_worker.frames.image import read_image
from videoqa_worker.frames.sparse_file import SparseFile
from videoqa_worker.settings import FrameLimits

__all__ = ["is_still", "read_still"]


def is_still(file: SparseFile) -> bool:
    """Returns True for a file of an image format that has one picture; one that may have more is fetched whole."""
    file_type = identify(file)
    if file_type.kind != "image":
        return False
    if not file_type.may_move:
        return True
    file.ensure([(0, file.size_bytes)])
    return not is_animated(file)


def read_still(
    file: SparseFile,
    sampling: Sampling,
    start: float | None,
    end: float | None,
    *,
    most_side: int | None,
    limits: FrameLimits,
    check: Callable[[], None],
) -> SampledVideo:
    """Reads a still picture for a video input; a clip or times that were asked for have no effect, which it says.

    Raises:
        As `read_image`.
    """
    video = read_image(file, most_side=most_side, limits=limits, check=check)
    if start is None and end is None and sampling.times is None:
        return video
    message = "the file is a picture: it gives one frame, and start, end and times do not apply"
    warning = Warn(code="one_picture", message=message)
    return SampledVideo(video.frames, video.info, (*video.warnings, warning))
