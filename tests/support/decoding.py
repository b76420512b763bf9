"""A sparse file with a callback for the decoder's requests, and comparison of results."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from videoqa.errors import VideoQAError
from videoqa_worker.frames import Frame, SampledVideo, Span, Spans


class EmptyCopy:
    """A SparseFile of which nothing is present until a decoder asks for it."""

    def __init__(
        self, original: Path, folder: Path, on_ensure: Callable[[], None] = lambda: None
    ) -> None:
        self.path = folder / f"sparse-{os.urandom(4).hex()}-{original.name}"
        self.present = Spans()
        self.asked: list[tuple[Span, ...]] = []
        self._content = original.read_bytes()
        self._on_ensure = on_ensure
        self.size_bytes = len(self._content)
        with self.path.open("wb") as file:
            file.truncate(self.size_bytes)

    def ensure(self, spans: Sequence[Span]) -> None:
        self.asked.append(tuple(spans))
        self._on_ensure()
        with self.path.open("r+b") as file:
            for start, end in spans:
                file.seek(start)
                file.write(self._content[start:end])
                self.present.add(start, end)


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
