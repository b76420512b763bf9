"""How many frames each video of a job gets: the model's own wish, and the job's budget.

Knows the request and two numbers of the processor's configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from videoqa.contract import Sampling

__all__ = ["Stated", "resolved", "shares"]


@dataclass(frozen=True)
class Stated:
    """What a checkpoint's video processor asks for; transformers allows one of the two."""

    num_frames: int | None = None
    fps: float | None = None


def resolved(sampling: Sampling, stated: Stated) -> Sampling:
    """The sampling with its number of frames filled in: from the model, else the default."""
    if sampling.times is not None or sampling.frames is not None:
        return sampling
    if sampling.method == "uniform" and stated.fps:
        sampling = sampling.model_copy(update={"method": "fps", "fps": stated.fps})
    elif sampling.method != "fps" and stated.num_frames:
        return sampling.model_copy(update={"frames": stated.num_frames})
    return sampling.model_copy(update={"frames": sampling.cap})


def shares(sampling: Sampling, videos: int) -> Iterator[Sampling]:
    """One sampling a video: an equal share of the budget, the first ones one frame more."""
    for n in range(videos):
        if sampling.budget is None:
            yield sampling
            continue
        share = sampling.budget // videos + (n < sampling.budget % videos)
        yield sampling.model_copy(update={"frames": min(sampling.cap, share)})
