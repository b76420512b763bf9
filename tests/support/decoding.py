"""Calls of a decoder and comparison of their results."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from videoqa.errors import VideoQAError
from videoqa_worker.frames import Frame, SampledVideo


def outcome(call: Callable[[], SampledVideo]) -> SampledVideo | VideoQAError:
    try:
        return call()
    except VideoQAError as error:
        return error


def notes(frame: Frame) -> tuple[object, ...]:
    return frame.index, frame.pts_s, frame.exact, frame.asked_s, frame.pixels.shape


def assert_same(there: SampledVideo | VideoQAError, here: SampledVideo | VideoQAError) -> None:
    """Asserts that two results are equal, to the bit."""
    if isinstance(here, VideoQAError):
        assert type(there) is type(here)
        assert (there.message, there.param) == (here.message, here.param)
        return
    assert isinstance(there, SampledVideo), there
    assert (there.info, there.warnings) == (here.info, here.warnings)
    assert [notes(frame) for frame in there.frames] == [notes(frame) for frame in here.frames]
    for ours, theirs in zip(there.frames, here.frames, strict=True):
        assert ours.pixels.dtype == np.uint8
        assert ours.pixels.flags.c_contiguous
        assert np.array_equal(ours.pixels, theirs.pixels)
