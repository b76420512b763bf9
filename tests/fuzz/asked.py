"""Calls the sampler on one file, and returns its results in a form that can be pickled.

Runs in a child process. Pixels become a digest and the number that is burnt into them.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from fuzz.child import descriptors, resident_bytes
from support.videos import read_number

from videoqa.contract import Sampling
from videoqa.errors import VideoQAError
from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.frames import CompleteFile, SampledVideo, sample_frames
from videoqa_worker.settings import FrameLimits

__all__ = [
    "ASKED",
    "LIMITS",
    "Ask",
    "Given",
    "Picture",
    "Sampled",
    "digest",
    "direct",
    "number_in",
    "through_decoders",
]

Pixels = npt.NDArray[np.uint8]

LIMITS = FrameLimits(
    max_pixels=1920 * 1088, max_frames_bytes=256 << 20, max_packets=100_000, decode_timeout_s=10.0
)
"""Tighter limits than the defaults, since a damaged header may claim anything."""


@dataclass(frozen=True)
class Ask:
    """The arguments of one call of `sample_frames`."""

    frames: int
    start_s: float | None = None
    end_s: float | None = None


ASKED = (Ask(1), Ask(8), Ask(60), Ask(5, 0.52, 1.4), Ask(3, 1.9))
"""Calls for one frame, for 8, for every one, and for two clips, one of them up to the end."""


@dataclass(frozen=True)
class Picture:
    """A sampled frame; `number` is None where the blocks are neither black nor white."""

    index: int | None
    pts_s: float
    exact: bool
    digest: str
    number: int | None


@dataclass(frozen=True)
class Given:
    """The result of one call: pictures, the code of an error of ours, or another exception."""

    ask: Ask
    pictures: tuple[Picture, ...] = ()
    duration_s: float | None = None
    warnings: tuple[str, ...] = ()
    refused: str | None = None
    text: str = ""
    unexpected: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Sampled:
    """The results of all calls on one file, and the process's resources afterwards."""

    given: tuple[Given, ...]
    descriptors: int
    resident_bytes: int


@contextmanager
def direct() -> Iterator[Callable[[Path], Sampled]]:
    """Work for a `Child` that calls `sample_frames` in that very process."""
    _calm_allocator()
    yield partial(_sample, partial(sample_frames, limits=LIMITS), tuple)


@contextmanager
def through_decoders() -> Iterator[Callable[[Path], Sampled]]:
    """Work for a `Child` that samples in a decoding process, as a worker does.

    That process lives as long as the child, so that leaks show.
    """
    with Decoders(LIMITS, processes=1, commands_each=1 << 30, resident_bytes=1 << 40) as decoders:
        decoders.start()
        call = partial(_through, decoders)
        yield partial(_sample, call, lambda: decoders.pids)


def _through(decoders: Decoders, path: Path, sampling: Sampling, **clip: Any) -> SampledVideo:
    return decoders.sample(CompleteFile(path), sampling, **clip)


def _sample(
    call: Callable[..., SampledVideo], helpers: Callable[[], Iterable[int]], path: Path
) -> Sampled:
    given = tuple(_give(call, path, ask) for ask in ASKED)
    gc.collect()
    pids = (os.getpid(), *helpers())
    return Sampled(given, sum(map(descriptors, pids)), sum(map(resident_bytes, pids)))


def _give(call: Callable[..., SampledVideo], path: Path, ask: Ask) -> Given:
    began = time.monotonic()
    try:
        video = call(path, Sampling(frames=ask.frames), start=ask.start_s, end=ask.end_s)
    except VideoQAError as error:
        seconds = time.monotonic() - began
        return Given(ask, refused=error.code, text=str(error), seconds=seconds)
    except Exception:  # noqa: BLE001 - any exception is a finding
        return Given(ask, unexpected=traceback.format_exc(limit=-4))
    return replace(_given(ask, video), seconds=time.monotonic() - began)


def _given(ask: Ask, video: SampledVideo) -> Given:
    pictures = tuple(
        Picture(f.index, f.pts_s, f.exact, digest(f.pixels), number_in(f.pixels))
        for f in video.frames
    )
    warnings = tuple(warning.code for warning in video.warnings)
    return Given(ask, pictures, video.info.duration_s, warnings)


def digest(pixels: Pixels) -> str:
    """Returns a digest that is the same only for pictures that are equal pixel for pixel."""
    whole = hashlib.blake2b(pixels.tobytes(), digest_size=12)
    return f"{pixels.shape[1]}x{pixels.shape[0]}:{whole.hexdigest()}"


def number_in(pixels: Pixels) -> int | None:
    try:
        return read_number(pixels)
    except AssertionError:
        return None


def _calm_allocator() -> None:
    """Has freed large blocks returned to the system, so that resident memory is memory in use."""
    m_mmap_threshold = -3
    ctypes.CDLL(None).mallopt(m_mmap_threshold, 128 << 10)
