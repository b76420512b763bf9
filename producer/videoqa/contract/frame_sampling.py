"""Sampling: the choice of the frames of a video that the model sees, as a part of the request."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from videoqa.contract.model import Model

__all__ = ["DEFAULT_FPS_CAP", "DEFAULT_FRAMES", "Sampling"]


DEFAULT_FRAMES = 8
"""Frames of a video if neither the job nor the model's processor states a number."""
DEFAULT_LONGEST_SHOT_S = 60.0
DEFAULT_SHORTEST_SHOT_S = 1.0
DEFAULT_FPS_CAP = 32
"""Most frames that `fps` takes if `frames` names no other cap: with as many, an answer still fits into
the models' contexts."""
_FIELDS_OF_METHODS = (
    ("fps", "fps", True),
    ("times", "times", True),
    ("tolerance_s", "keyframe", False),
    ("segment", "segment", False),
    ("segment_s", "segment", False),
    ("min_segment_s", "segment", False),
    ("overlap_s", "segment", False),
)
"""(field, the method that it belongs to, True if that method needs it)"""


class Sampling(Model):
    """The choice of the frames of each video that the model sees: by time, but for `guide` never by frame count.

    With a clip from `a` to `b` seconds (the whole video: 0 and its duration):

    - `uniform`: n = `frames` instants `a + k * (b - a) / n`, the Hugging Face guide's by time.
    - `fps`: instants `a + k / fps` before `b`; if they are more than the cap n = `frames`
      (or `DEFAULT_FPS_CAP`), the `uniform` ones for n instead, with a warning.
    - `times`: the instants given, in seconds from the video's beginning.
    - `keyframe`: the `uniform` instants, each moved to the nearest keyframe if one lies within
      `tolerance_s` of it (None: however far). Reads and decodes far less.
    - `segment`: the clip is cut into segments of `segment_s` seconds, each beginning
      `segment_s - overlap_s` after the one before; each question is asked of each segment, which
      gets the `uniform` instants for its own a and b. The last one ends at b. If it would bring
      less than a tenth of `segment_s` that is new, the one before ends at b instead.
      With `segment="shots"` segments end where the film cuts: a cut that comes less than
      `min_segment_s` (1) after the last one, or before b, is passed over, and a shot longer than
      `segment_s` (60) is cut into equal parts.
    - `guide`: the pictures number `k * (count // n)`, by OpenCV and its count, for who comes from
      Hugging Face's guide "video-text-to-text" and wants the same answers. Of whole videos only; reads
      and decodes all up to the last of them, and needs a worker with OpenCV.

    The picture of an instant t is the one on screen: the last with pts <= t. Pictures come in
    the order of time, and one that is on screen at several instants comes once.
    """

    method: Literal["uniform", "fps", "keyframe", "times", "segment", "guide"] = "uniform"
    frames: int | None = Field(default=None, ge=1, le=256)
    """Frames of a video, or of each segment; None: as many as the model's processor states, else 8."""
    fps: float | None = Field(default=None, gt=0, le=240)
    times: tuple[Annotated[float, Field(ge=0, le=1e7)], ...] | None = Field(
        default=None, min_length=1, max_length=256
    )
    tolerance_s: float | None = Field(default=None, ge=0, le=1e7)
    segment: Literal["shots"] | None = None
    """The end of segments; `shots`: where the film cuts. None: after `segment_s`."""
    segment_s: float | None = Field(default=None, ge=0.1, le=86_400)
    """Length of a segment; with `shots` the greatest."""
    min_segment_s: float | None = Field(default=None, ge=0.1, le=86_400)
    """Least length of a segment, with `shots` only."""
    overlap_s: float | None = Field(default=None, ge=0, le=86_400)
    """Overlap of adjacent segments in seconds; None: they do not overlap."""
    budget: int | None = Field(default=None, ge=1, le=1024)
    """Frames of all videos of the job together: each video gets an equal share, and the first ones
    the remainder; one that asks for fewer gets those. Images are not counted."""
    max_pixels: int | None = Field(default=None, ge=1, le=1 << 31)
    """Most pixels (width x height) of each frame and image, as the model's processor resizes it; with tiles,
    those of all tiles. A model whose pictures have a fixed size above it refuses the job
    (`frame_limit_unmet`). None: no limit but the model's, or what the worker is set to."""
    max_tokens_per_frame: int | None = Field(default=None, ge=1, le=1 << 20)
    """Most tokens that stand for each frame or image in the prompt; for frames that share tokens, their share. As
    `max_pixels` otherwise."""

    @model_validator(mode="after")
    def _check_method_fields(self) -> Self:
        for name, method, is_needed in _FIELDS_OF_METHODS:
            given = getattr(self, name) is not None
            if given and self.method != method:
                raise ValueError(f"got {name} with method={self.method!r}, expected {method!r}")
            if not given and is_needed and self.method == method:
                raise ValueError(f"got method={method!r} without {name}, expected {name}")
        self._check_segments()
        if self.method == "times" and (self.frames is not None or self.budget is not None):
            raise ValueError("got times with frames or budget, expected the times alone")
        if self.method == "segment" and self.budget is not None:
            raise ValueError("got segments with budget, expected `frames` for each segment")
        if self.segment_s is not None and (self.overlap_s or 0.0) >= self.segment_s:
            raise ValueError(
                f"got overlap_s={self.overlap_s:g}, expected less than segment_s={self.segment_s:g}"
            )
        return self

    def _check_segments(self) -> None:
        if self.method == "segment" and self.segment is None and self.segment_s is None:
            raise ValueError("got method='segment' without segment_s, expected segment_s")
        if self.segment is None and self.min_segment_s is not None:
            raise ValueError("got min_segment_s without segment='shots', expected both or neither")
        if self.segment is not None and self.overlap_s is not None:
            raise ValueError("got overlap_s with segment='shots', expected one of them")
        if self.segment is not None and self.shortest_s > self.longest_s:
            raise ValueError(
                f"got min_segment_s={self.shortest_s:g}, expected at most segment_s={self.longest_s:g}"
            )

    @property
    def longest_s(self) -> float:
        """Greatest length of a segment, in seconds."""
        return DEFAULT_LONGEST_SHOT_S if self.segment_s is None else self.segment_s

    @property
    def shortest_s(self) -> float:
        """Least length of a shot, in seconds."""
        default_s = min(DEFAULT_SHORTEST_SHOT_S, self.longest_s)
        return default_s if self.min_segment_s is None else self.min_segment_s

    @property
    def cap(self) -> int:
        """Most frames that one video, or one segment, can give."""
        if self.times is not None:
            return len(self.times)
        return self.frames or (DEFAULT_FPS_CAP if self.method == "fps" else DEFAULT_FRAMES)
