"""The probe of a dry run: opens each input of a row as a worker would, as far as its header.

Runs with the rights of whoever calls it, like `videoqa frames`, in threads of this process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from videoqa.bulk import Probed
from videoqa.contract import JobRequest, Sampling, Video
from videoqa_worker.cli.dry_run.header import read_header
from videoqa_worker.cli.dry_run.tokens import Seen, Tokens
from videoqa_worker.job.frame_budget import resolved, shares
from videoqa_worker.settings import WorkerSettings
from videoqa_worker.sources import LocalCopy, Sources, plan

__all__ = ["HeaderProbe", "probe"]


@contextmanager
def probe(environ: Mapping[str, str]) -> Iterator[HeaderProbe]:
    """From a worker's settings, open to all that this user can read and reach."""
    settings = WorkerSettings.from_environment(
        environ, file_roots=(Path("/"),), private_addresses=True
    )
    # A worker takes small files whole; their headers do here.
    config = settings.sources.model_copy(update={"download_below_bytes": 0})
    with Sources(config, s3_endpoint_url=settings.s3_endpoint_url) as sources:
        yield HeaderProbe(sources, settings)


@dataclass(frozen=True)
class _Looked:
    seconds: float | None
    frames: int | None
    fetched_bytes: int
    width: int = 0
    height: int = 0
    segments: int = 1


class HeaderProbe:
    """A `videoqa.bulk.estimate.Probe`; thread-safe."""

    def __init__(self, sources: Sources, settings: WorkerSettings) -> None:
        self._sources, self._settings = sources, settings
        self._config = settings.sources
        self._tokens = Tokens(settings)

    def look(self, request: JobRequest) -> Probed:
        """Raises a SourceError or SamplingError, as a worker would."""
        sampling = resolved(request.sampling, self._tokens.stated(request.model))
        videos = sum(isinstance(item, Video) for item in request.inputs)
        each = shares(sampling, videos)
        looked = [
            self._video(item, next(each)) if isinstance(item, Video) else self._image(item.url)
            for item in request.inputs
        ]
        known = all(one.seconds is not None for one in looked)
        return Probed(
            known=known,
            seconds=sum(one.seconds or 0.0 for one in looked),
            frames=sum(one.frames or 0 for one in looked),
            fetched_bytes=sum(one.fetched_bytes for one in looked),
            prompt_tokens=self._count(request, looked) if known else None,
        )

    def _count(self, request: JobRequest, looked: list[_Looked]) -> int | None:
        seen: list[Seen] = [
            (item.kind, (one.frames or 0) // one.segments, one.width, one.height)
            for item, one in zip(request.inputs, looked, strict=True)
        ]
        if any(not (width and height) for _, _, width, height in seen):
            return None
        counts = [
            self._tokens.count(request.model, question.text, seen) for question in request.questions
        ]
        known = [count for count in counts if count is not None]
        times = looked[0].segments if looked else 1
        return sum(known) * times if len(known) == len(counts) else None

    def _video(self, item: Video, sampling: Sampling) -> _Looked:
        with self._sources.open(item.url) as copy:
            small = copy.size_bytes <= self._config.download_below_bytes
            limits = self._settings.frames
            header = read_header(copy, sampling, item.start, item.end, limits, whole=small)
            fetched_bytes = 0
            if not item.url.startswith("file:"):
                fetched_bytes = self._fetched_bytes(copy, header.spans)
            return _Looked(
                header.seconds, header.frames, fetched_bytes, header.width, header.height,
                header.segments,
            )  # fmt: skip

    def _fetched_bytes(self, copy: LocalCopy, spans: list[tuple[int, int]] | None) -> int:
        """What is here now is what a worker begins with."""
        if spans is None:
            return copy.size_bytes
        todo = plan(spans, copy.present, copy.size_bytes, self._config)
        return copy.present.total_bytes + sum(end - start for start, end in todo)

    def _image(self, url: str) -> _Looked:
        with self._sources.open(url) as copy:
            here = url.startswith("file:")
            return _Looked(0.0, 1, 0 if here else copy.size_bytes)
