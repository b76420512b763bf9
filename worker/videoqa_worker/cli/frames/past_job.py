"""The frames that the model saw for a past job, taken again from its inputs.

The record tells inputs and sampling, the result which version of each input was read. An input that is
another one since is refused: its pictures would not be those that the model saw.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from videoqa.client import Client
from videoqa.contract import (
    FrameUsed,
    Image,
    Input,
    JobRequest,
    Result,
    Sampling,
    SourceInfo,
    Warn,
    redact_url,
)
from videoqa.errors import InputChanged, InvalidRequest
from videoqa.jobs import Ledger, connect
from videoqa.login import find_redis_settings
from videoqa_worker.cli.frames.take import FramesView
from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.decoding.inputs import sample_input
from videoqa_worker.frames import SampledVideo
from videoqa_worker.job.draft import attribute_errors
from videoqa_worker.job.frame_budget import ProcessorDefaults, assign_samplings, fill_sampling
from videoqa_worker.settings import WorkerSettings
from videoqa_worker.sources import LocalCopy, Sources

__all__ = ["MOST_FRAMES", "PastJob", "read_past_job", "take_past_frames"]

MOST_FRAMES = 256
"""Most frames that are taken again: all are in memory at once, and nobody can read a sheet of more."""


@dataclass(frozen=True)
class PastJob:
    """A job as its record has it, with its inputs' whole URLs, and its result if it has one."""

    job_id: str
    request: JobRequest
    result: Result | None

    @property
    def sampling(self) -> Sampling:
        """The sampling of the job, with the number of frames that its model stated if the result tells it."""
        if self.result is not None:
            return self.result.sampling
        return fill_sampling(self.request.sampling, ProcessorDefaults())

    def list_frames(self, number: int) -> list[FrameUsed]:
        """Lists the frames of an input that the model saw; none without a result."""
        if self.result is None:
            return []
        of_segments = (frame for part in self.result.segments for frame in part.frames)
        return [frame for frame in (*self.result.frames, *of_segments) if frame.input == number]


def read_past_job(job_id: str) -> PastJob:
    """Reads a job of the Redis that the other commands use.

    Raises:
        JobNotFound, JobExpired, RedisUnavailable. OutputError: the result can't be read.
    """
    settings = find_redis_settings("frames --job")
    with Client(settings=settings) as client, connect(settings) as connection:
        state = client.get(job_id).state
        ledger = Ledger(connection, url=settings.redis_url, prefix=settings.prefix)
        request = ledger.for_tenant(settings.tenant).request(job_id)
        result = client.result(job_id) if state == "succeeded" else None
        return PastJob(job_id, request, result)


def take_past_frames(
    job: PastJob, settings: WorkerSettings, on_bytes: Callable[[int, int | None], None]
) -> list[FramesView]:
    """Takes the frames of each input of the job; `on_bytes` as for `take_frames`.

    Raises:
        InputChanged: an input is another one than the job saw.
        InvalidRequest: the job saw more than `MOST_FRAMES` frames.
        SourceError, SamplingError: as in a worker.
    """
    inputs = job.request.inputs
    _check_count(sum(len(job.list_frames(number)) for number in range(len(inputs))), inputs[0])
    samplings = assign_samplings(job.sampling, inputs)
    views = []
    with (
        Sources(settings.sources, s3_endpoint_url=settings.s3_endpoint_url) as sources,
        Decoders.of(settings, processes=1) as decoders,
    ):
        for number, (item, sampling) in enumerate(zip(inputs, samplings, strict=True)):
            begun_s = time.monotonic()
            with (
                attribute_errors(f"inputs.{number}.url"),
                sources.open(item.url, progress=on_bytes) as copy,
            ):
                if job.result is not None:
                    _check_version(number, item, copy, job.result.sources[number])
                video = _sample(decoders, item, copy, sampling)
                views.append(
                    FramesView(
                        source=redact_url(item.url),
                        kind="image" if video.info.is_image else "video",
                        sampling=sampling,
                        video=video,
                        warnings=(*video.warnings, *_compare(video, job.list_frames(number))),
                        size_bytes=copy.size_bytes,
                        fetched_bytes=copy.fetched_bytes,
                        requests=copy.requests,
                        seconds=time.monotonic() - begun_s,
                    )
                )
    return views


def _check_count(count: int, item: Input) -> None:
    if count > MOST_FRAMES:
        raise InvalidRequest(
            f"got a job of {count} frames, expected at most {MOST_FRAMES}; show a part of them: "
            f"videoqa frames {redact_url(item.url)} --start S --end S --frames N",
            param="job",
        )


def _check_version(number: int, item: Input, copy: LocalCopy, seen: SourceInfo) -> None:
    """Refuses an input that is another one than the job saw, as far as its store tells."""
    for name, was, now in (
        ("size", seen.size_bytes, copy.size_bytes),
        ("ETag", seen.etag, copy.etag),
        ("version", seen.version_id, copy.version_id),
    ):
        if was is not None and now is not None and was != now:
            raise InputChanged(
                f"{redact_url(item.url)} is another file than the job saw ({name} {was}, now {now}), expected "
                "the same: these would not be the pictures that the model saw",
                param=f"inputs.{number}.url",
            )


def _sample(decoders: Decoders, item: Input, copy: LocalCopy, sampling: Sampling) -> SampledVideo:
    """Samples the input by the code of a worker's jobs; the frames of all segments are one sequence."""
    if isinstance(item, Image) or sampling.method != "segment":
        return sample_input(decoders, item, copy, sampling)
    with closing(decoders.segments(copy, sampling, start=item.start, end=item.end)) as segments:
        parts = []
        for segment in segments:
            _check_count(segment.total * sampling.cap, item)
            parts.append(segment.video)
    warnings = dict.fromkeys(warning for part in parts for warning in part.warnings)
    frames = tuple(frame for part in parts for frame in part.frames)
    return replace(parts[0], frames=frames, warnings=tuple(warnings))


def _compare(video: SampledVideo, seen: list[FrameUsed]) -> Iterator[Warn]:
    """Yields a warning if these are not the frames that the result names."""
    now = [(frame.index, round(frame.pts_s, 6)) for frame in video.frames]
    if seen and now != [(frame.index, frame.pts_s) for frame in seen]:
        yield Warn(
            code="other_frames",
            message="these are not all the frames that the result names: another release took them",
        )
