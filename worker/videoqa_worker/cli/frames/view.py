"""A view: the frames of one input, taken as a job's would be, and what it took to get them.

Whoever runs this may read every file and reach every address that their shell can, so the
worker's two locks against strangers, closed folders and private addresses, are open here. Its
limits of size and time hold.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from videoqa.cli.arguments import media
from videoqa.contract import Image, Input, JobRequest, Sampling, Warn, parse_request, redact_url
from videoqa.errors import SourceNotFound
from videoqa_worker.cli.frames.spinner import Waiting
from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.frames import SampledVideo
from videoqa_worker.settings import WorkerSettings
from videoqa_worker.sources import LocalCopy, Sources

__all__ = ["View", "take"]


@dataclass(frozen=True, eq=False)
class View:
    """Frames and figures of one input."""

    source: str
    """The URL without credentials and query."""
    kind: str
    sampling: Sampling
    video: SampledVideo
    warnings: tuple[Warn, ...]
    size_bytes: int
    fetched_bytes: int
    """Over the network, repeated ranges included; 0 for a file of this machine."""
    requests: int
    seconds: float
    """From the first request to the last frame, with a decoder that is warm."""

    @property
    def name(self) -> str:
        """The last part of the path, for people."""
        return unquote(urlsplit(self.source).path).rstrip("/").rpartition("/")[2] or self.source


def take(
    name: str,
    sampling: dict[str, Any] | None,
    start: float | None,
    end: float | None,
    settings: WorkerSettings,
    waiting: Waiting,
) -> View:
    """The frames of a path or URL.

    Raises:
        RequestError: as for a job with these arguments.
        SourceError, SamplingError: as a worker's. ConfigurationError: no decoder starts here.
    """
    request = _checked(name, sampling, start, end)
    (item,) = request.inputs
    with (
        Sources(settings.sources, s3_endpoint_url=settings.s3_endpoint_url) as sources,
        _decoders(settings) as decoders,
    ):
        decoders.start()  # as warm as a worker's before the clock runs
        begun_s = time.monotonic()
        with sources.open(item.url, check=waiting.check, progress=waiting.progress) as copy:
            video = _sample(decoders, item, copy, request.sampling, waiting)
            return View(
                source=redact_url(item.url),
                kind=item.kind,
                sampling=request.sampling,
                video=video,
                warnings=video.warnings + _about_pictures(item, sampling, start, end),
                size_bytes=copy.size_bytes,
                fetched_bytes=copy.fetched_bytes,
                requests=copy.requests,
                seconds=time.monotonic() - begun_s,
            )


def _checked(
    name: str, sampling: dict[str, Any] | None, start: float | None, end: float | None
) -> JobRequest:
    """What is asked for, held to the contract of a job."""
    if "://" not in name and not Path(name).exists():
        raise SourceNotFound(
            f"there is no file {name!r}, expected a path or an s3://, http(s):// or file:// URL",
            param="inputs.0.url",
        )
    asked: dict[str, Any] = {"inputs": media([name], start, end), "questions": ["-"]}
    return parse_request(asked | ({"sampling": sampling} if sampling else {}))


def _decoders(settings: WorkerSettings) -> Decoders:
    return Decoders(settings.frames, processes=1, memory_bytes=settings.decoder_memory_bytes)


def _sample(
    decoders: Decoders, item: Input, copy: LocalCopy, sampling: Sampling, waiting: Waiting
) -> SampledVideo:
    """By the code that a worker's jobs use."""
    if isinstance(item, Image):
        return decoders.read_image(copy, check=waiting.check)
    return decoders.sample(copy, sampling, start=item.start, end=item.end, check=waiting.check)


def _about_pictures(
    item: Input, sampling: dict[str, Any] | None, start: float | None, end: float | None
) -> tuple[Warn, ...]:
    if not isinstance(item, Image) or (sampling, start, end) == (None, None, None):
        return ()
    message = "by its name this is a picture, not a video: one frame, whatever was asked for"
    return (Warn(code="one_picture", message=message),)
