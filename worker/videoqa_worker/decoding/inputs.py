"""Takes the frames of a job's input by its kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from videoqa.contract import Input, Sampling, Video
from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.frames import SampledVideo, SparseFile, no_check

__all__ = ["sample_input"]


def sample_input(
    decoders: Decoders,
    item: Input,
    file: SparseFile,
    sampling: Sampling,
    *,
    most_side: int | None = None,
    check: Callable[[], None] = no_check,
) -> SampledVideo:
    """Takes the frames of an input; those of an image that was guessed to be one by what its bytes are.

    Raises:
        As `Decoders.sample`.
    """
    if isinstance(item, Video):
        return decoders.sample(
            file, sampling, start=item.start, end=item.end, most_side=most_side, check=check
        )
    if not item.guessed:
        return decoders.read_image(file, most_side=most_side, check=check)
    video = decoders.sample(file, sampling, most_side=most_side, check=check)
    # Times that were asked for are those of the job's videos.
    warnings = tuple(warning for warning in video.warnings if warning.code != "one_picture")
    return replace(video, warnings=warnings)
