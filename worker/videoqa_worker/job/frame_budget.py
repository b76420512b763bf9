"""Frame budget: the number of frames of each video, by the processor's defaults and the job's budget.

Knows the request and two numbers of the processor's configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from videoqa.contract import Input, Sampling, Video

__all__ = ["ProcessorDefaults", "assign_samplings", "fill_sampling", "split_frame_budget"]


@dataclass(frozen=True)
class ProcessorDefaults:
    """Sampling that a checkpoint's video processor asks for (transformers allows one of the two), and limits."""

    num_frames: int | None = None
    fps: float | None = None
    max_pixels: int | None = None
    max_tokens_per_frame: int | None = None
    """Limits of a frame by the worker's settings."""


def fill_sampling(sampling: Sampling, defaults: ProcessorDefaults) -> Sampling:
    """Fills in the worker's limits of a frame, and the number of frames: the processor's, else the contract's."""
    limits = {
        name: getattr(defaults, name)
        for name in ("max_pixels", "max_tokens_per_frame")
        if getattr(sampling, name) is None and getattr(defaults, name) is not None
    }
    if limits:
        sampling = sampling.model_copy(update=limits)
    if sampling.times is not None or sampling.frames is not None:
        return sampling
    if sampling.method == "uniform" and defaults.fps:
        sampling = sampling.model_copy(update={"method": "fps", "fps": defaults.fps})
    elif sampling.method != "fps" and defaults.num_frames:
        return sampling.model_copy(update={"frames": defaults.num_frames})
    return sampling.model_copy(update={"frames": sampling.cap})


def assign_samplings(sampling: Sampling, inputs: Sequence[Input]) -> Iterator[Sampling]:
    """Yields the sampling of each input: the videos share the budget, and an image that moves may use all of it."""
    shares = split_frame_budget(sampling, sum(isinstance(item, Video) for item in inputs))
    for item in inputs:
        yield next(shares) if isinstance(item, Video) else next(split_frame_budget(sampling, 1))


def split_frame_budget(sampling: Sampling, videos: int) -> Iterator[Sampling]:
    """Yields one sampling a video: an equal share of the budget, the first ones one frame more."""
    for n in range(videos):
        if sampling.budget is None:
            yield sampling
            continue
        share = sampling.budget // videos + (n < sampling.budget % videos)
        yield sampling.model_copy(update={"frames": min(sampling.cap, share)})
