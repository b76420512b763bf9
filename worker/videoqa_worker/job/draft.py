"""Outcome: what an attempt has found so far, and how it says where it is.

What the steps of an attempt hand from one to the next.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

from videoqa import errors
from videoqa.contract import (
    Answer,
    FrameUsed,
    Input,
    Sampling,
    Segment,
    SourceInfo,
    Usage,
    Video,
    Warn,
    redact_url,
)
from videoqa_worker.frames import SampledVideo, VideoInfo
from videoqa_worker.prompt import FrameInput
from videoqa_worker.sources import LocalCopy

__all__ = [
    "Opened",
    "Outcome",
    "Report",
    "SourceVersion",
    "about",
    "resource",
    "seen",
    "version_of",
]

_SIGNATURE = frozenset(
    ("awsaccesskeyid", "googleaccessid", "key-pair-id", "policy", "signature", "expires")
)
_ALIBABA = frozenset(
    ("ossaccesskeyid", "security-token", "x-oss-security-token", "x-oss-signature", "x-oss-date",
     "x-oss-signature-version", "x-oss-credential", "x-oss-expires", "x-oss-additional-headers")
)  # fmt: skip
"""Not all that begins so: `x-oss-process` says which picture or part of the object is sent."""
_TENCENT = frozenset(
    ("q-sign-algorithm", "q-ak", "q-sign-time", "q-key-time", "q-header-list", "q-url-param-list",
     "q-signature", "x-cos-security-token")
)  # fmt: skip
_AZURE = frozenset(
    ("sv", "ss", "srt", "st", "se", "sr", "sp", "spr", "sip", "si", "sig", "sdd",
     "saoid", "suoid", "scid", "skoid", "sktid", "skt", "ske", "sks", "skv")
)  # fmt: skip
"""Of a shared access signature, which has `sv` and `sig` always; alone the names are too short to tell."""


class Report(Protocol):
    """Says where the attempt is."""

    def __call__(
        self,
        stage: errors.Stage,
        *,
        message: str = "",
        done: int = 0,
        total: int = 0,
        question_id: str = "",
        text: str = "",
        start: float | None = None,
    ) -> None: ...


@dataclass(frozen=True)
class SourceVersion:
    """Which bytes an input is, before any of them is decoded."""

    url: str
    """Without credentials: see `resource`."""
    etag: str | None
    version_id: str | None
    size_bytes: int
    state: str | None = None
    """See `LocalCopy.state`."""

    @property
    def exact(self) -> bool:
        """Other bytes would have another name. A weak ETag does not promise that."""
        return self.etag is not None and not self.etag.startswith("W/")


Opened = Callable[[Sampling, Sequence[SourceVersion]], None]
"""Told of the sampling and all sources before frames are taken of the last; may end the attempt."""


@dataclass
class Outcome:
    """What an attempt has found so far."""

    sampling: Sampling = field(default_factory=Sampling)
    """As used: with what the model's processor states filled in."""
    answers: tuple[Answer, ...] = ()
    segments: list[Segment] = field(default_factory=list)
    frames: list[FrameUsed] = field(default_factory=list)
    sources: list[SourceInfo] = field(default_factory=list)
    warnings: list[Warn] = field(default_factory=list)
    media: list[FrameInput] = field(default_factory=list)
    versions: list[SourceVersion] = field(default_factory=list)
    bytes_fetched: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def timing(self, stage: errors.Stage) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] += time.monotonic() - begun

    def count_as_fetching(self, seconds: float) -> None:
        """So much of the last sampling was spent waiting for bytes."""
        self.seconds["sampling"] -= seconds
        self.seconds["fetching"] += seconds

    def note_source(self, item: Input, copy: LocalCopy, info: VideoInfo) -> None:
        """Keeps what the result says of an input."""
        video = item if isinstance(item, Video) else None
        self.bytes_fetched += copy.fetched_bytes
        self.sources.append(
            SourceInfo(
                url=redact_url(item.url),
                kind=item.kind,
                size_bytes=copy.size_bytes,
                etag=copy.etag,
                version_id=copy.version_id,
                start=video.start if video else None,
                end=video.end if video else None,
                duration_s=info.duration_s if video else None,
                fps=info.fps if video else None,
                width=info.width,
                height=info.height,
                codec=info.codec,
                format=info.format,
            )
        )

    def note_warnings(self, number: int, warnings: Sequence[Warn]) -> None:
        """Each once, about the input with this number."""
        for warning in warnings:
            about_it = warning.model_copy(update={"param": f"inputs.{number}"})
            if about_it not in self.warnings:
                self.warnings.append(about_it)

    def usage(self, queued_s: float) -> Usage:
        given = [answer for part in self.segments for answer in part.answers] + list(self.answers)
        return Usage(
            input_tokens=sum(answer.input_tokens for answer in given),
            output_tokens=sum(answer.output_tokens for answer in given),
            frames=len(self.frames) + sum(len(part.frames) for part in self.segments),
            bytes_fetched=self.bytes_fetched,
            queued_s=round(queued_s, 4),
            fetching_s=round(self.seconds["fetching"], 4),
            sampling_s=round(self.seconds["sampling"], 4),
            generating_s=round(self.seconds["generating"], 4),
        )


@contextmanager
def about(param: str) -> Iterator[None]:
    """Errors inside are about this part of the request, unless they say otherwise."""
    try:
        yield
    except (errors.SourceError, errors.SamplingError, errors.GenerationError) as error:
        error.param = error.param or param
        raise


def version_of(item: Input, copy: LocalCopy) -> SourceVersion:
    return SourceVersion(
        resource(item.url), copy.etag, copy.version_id, copy.size_bytes, copy.state
    )


def resource(url: str) -> str:
    """What an ETag is of: the URL with its query, of which the stores of S3, Google, CloudFront, Azure,
    Alibaba and Tencent sign a part anew for each user. An S3 URL has none: all after the bucket is the key."""
    shown, parts = redact_url(url), urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return shown
    query = parse_qsl(parts.query, keep_blank_values=True)
    signed = _SIGNATURE | _ALIBABA | _TENCENT
    if {"sv", "sig"} <= {name for name, _ in query}:
        signed |= _AZURE
    kept = [
        (name, value)
        for name, value in query
        if not name.lower().startswith(("x-amz-", "x-goog-")) and name.lower() not in signed
    ]
    return f"{shown}?{urlencode(kept)}" if kept else shown


def seen(
    number: int, kind: Literal["image", "video"], video: SampledVideo
) -> tuple[FrameInput, tuple[FrameUsed, ...]]:
    """An input's frames for the model, and for the result."""
    used = tuple(
        FrameUsed(
            input=number,
            index=frame.index,
            pts_s=round(frame.pts_s, 6),
            asked_s=round(frame.asked_s, 6),
            exact=frame.exact,
        )
        for frame in video.frames
    )
    pixels = tuple(frame.pixels for frame in video.frames)
    return FrameInput(kind, pixels, tuple(frame.pts_s for frame in video.frames)), used
