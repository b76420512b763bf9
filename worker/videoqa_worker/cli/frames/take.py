"""FramesView: the frames of one input, taken as in a job, with the bytes and time they cost.

The user of this command can read every file and reach every address from their shell anyway, so
the worker's two rules against strangers, closed folders and private addresses, are off here. Its
limits on size and time hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from videoqa.cli.arguments import build_inputs
from videoqa.contract import (
    Image,
    Input,
    JobRequest,
    Sampling,
    Warn,
    is_s3_url,
    parse_request,
    redact_url,
    split_url,
)
from videoqa.errors import SourceNotFound
from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.decoding.inputs import sample_input
from videoqa_worker.frames import SampledVideo, VideoInfo
from videoqa_worker.settings import WorkerSettings
from videoqa_worker.sources import Sources

__all__ = ["FramesView", "take_frames"]


@dataclass(frozen=True, eq=False)
class FramesView:
    """Frames and figures of one input."""

    source: str
    """The URL without credentials and query."""
    kind: str
    sampling: Sampling
    video: SampledVideo
    warnings: tuple[Warn, ...]
    size_bytes: int
    fetched_bytes: int
    """Bytes read over the network, repeated ranges included; 0 for a file of this machine."""
    requests: int
    seconds: float
    """Time from the first request to the last frame; the decoder was started before."""

    @property
    def name(self) -> str:
        """The last part of the URL's path, or of an object's key."""
        if is_s3_url(self.source):
            return self.source.rstrip("/").rpartition("/")[2]
        return unquote(split_url(self.source).path).rstrip("/").rpartition("/")[2] or self.source


def take_frames(
    name: str,
    sampling: dict[str, Any] | None,
    start: float | None,
    end: float | None,
    settings: WorkerSettings,
    on_bytes: Callable[[int, int | None], None],
) -> FramesView:
    """Takes the frames of a path or URL; `on_bytes` gets the bytes received, and the total if known.

    Raises:
        RequestError: as for a job with these arguments.
        SourceError, SamplingError: as in a worker. ConfigurationError: no decoder starts here.
    """
    request = _parse_request(name, sampling, start, end)
    (item,) = request.inputs
    with (
        Sources(settings.sources, s3_endpoint_url=settings.s3_endpoint_url) as sources,
        Decoders.of(settings, processes=1) as decoders,
    ):
        decoders.start()  # a worker's decoder is running too when a job comes
        begun_s = time.monotonic()
        with sources.open(item.url, progress=on_bytes) as copy:
            video = sample_input(decoders, item, copy, request.sampling)
            return FramesView(
                source=redact_url(item.url),
                kind="image" if video.info.is_image else "video",
                sampling=request.sampling,
                video=video,
                warnings=video.warnings + _warn_about_image(item, video.info, sampling, start, end),
                size_bytes=copy.size_bytes,
                fetched_bytes=copy.fetched_bytes,
                requests=copy.requests,
                seconds=time.monotonic() - begun_s,
            )


def _parse_request(
    name: str, sampling: dict[str, Any] | None, start: float | None, end: float | None
) -> JobRequest:
    """Returns the job request of these arguments, checked by the contract."""
    if "://" not in name and not Path(name).exists():
        raise SourceNotFound(
            f"there is no file {name!r}, expected a path or an s3://, http(s):// or file:// URL",
            param="inputs.0.url",
        )
    asked: dict[str, Any] = {"inputs": build_inputs([name], start, end), "questions": ["-"]}
    return parse_request(asked | ({"sampling": sampling} if sampling else {}))


def _warn_about_image(
    item: Input,
    info: VideoInfo,
    sampling: dict[str, Any] | None,
    start: float | None,
    end: float | None,
) -> tuple[Warn, ...]:
    asked = (sampling, start, end) != (None, None, None)
    if not (asked and isinstance(item, Image) and info.is_image):
        return ()
    message = "this is an image, not a video: it gives one frame, and sampling flags do not apply"
    return (Warn(code="one_picture", message=message),)
