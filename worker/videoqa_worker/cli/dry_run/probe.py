"""HeaderProbe: opens each input of a row as a worker would, and reads no more than its header.

Runs with the rights of the user who calls it, like `videoqa frames`, in threads of this process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from videoqa.bulk import ProbeResult
from videoqa.contract import JobRequest, Sampling, Video
from videoqa_worker.cli.dry_run.header import read_header
from videoqa_worker.cli.dry_run.tokens import InputShape, TokenCounter
from videoqa_worker.job.frame_budget import fill_sampling, split_frame_budget
from videoqa_worker.settings import WorkerSettings
from videoqa_worker.sources import LocalCopy, Sources, plan_ranges

__all__ = ["HeaderProbe", "probe"]


@contextmanager
def probe(environ: Mapping[str, str]) -> Iterator[HeaderProbe]:
    """Opens a probe with a worker's settings, and with every file and address of this user allowed."""
    settings = WorkerSettings.from_environment(
        environ, file_roots=(Path("/"),), private_addresses=True
    )
    # A worker fetches small files whole; a dry run needs only their headers.
    config = settings.sources.model_copy(update={"download_below_bytes": 0})
    with Sources(config, s3_endpoint_url=settings.s3_endpoint_url) as sources:
        yield HeaderProbe(sources, settings)


@dataclass(frozen=True)
class _InputFacts:
    """The facts that the header of one input gives."""

    seconds: float | None
    frames: int | None
    fetched_bytes: int
    width: int = 0
    height: int = 0
    segments: int = 1


class HeaderProbe:
    """Implements `videoqa.bulk.Probe`; thread-safe."""

    def __init__(self, sources: Sources, settings: WorkerSettings) -> None:
        self._sources, self._settings = sources, settings
        self._config = settings.sources
        self._tokens = TokenCounter(settings)

    def inspect(self, request: JobRequest) -> ProbeResult:
        """Reads the headers of a request's inputs; raises SourceError or SamplingError as a worker does."""
        sampling = fill_sampling(request.sampling, self._tokens.stated_sampling(request.model))
        videos = sum(isinstance(item, Video) for item in request.inputs)
        each = split_frame_budget(sampling, videos)
        facts = [
            self._inspect_video(item, next(each))
            if isinstance(item, Video)
            else self._inspect_image(item.url)
            for item in request.inputs
        ]
        known = all(one.seconds is not None for one in facts)
        return ProbeResult(
            known=known,
            seconds=sum(one.seconds or 0.0 for one in facts),
            frames=sum(one.frames or 0 for one in facts),
            fetched_bytes=sum(one.fetched_bytes for one in facts),
            prompt_tokens=self._count_tokens(request, facts) if known else None,
        )

    def _count_tokens(self, request: JobRequest, facts: list[_InputFacts]) -> int | None:
        shapes: list[InputShape] = [
            (item.kind, (one.frames or 0) // one.segments, one.width, one.height)
            for item, one in zip(request.inputs, facts, strict=True)
        ]
        if any(not (width and height) for _, _, width, height in shapes):
            return None
        counts = [
            self._tokens.count(request.model, question.text, shapes)
            for question in request.questions
        ]
        known = [count for count in counts if count is not None]
        times = facts[0].segments if facts else 1
        return sum(known) * times if len(known) == len(counts) else None

    def _inspect_video(self, item: Video, sampling: Sampling) -> _InputFacts:
        with self._sources.open(item.url) as copy:
            small = copy.size_bytes <= self._config.download_below_bytes
            limits = self._settings.frames
            header = read_header(copy, sampling, item.start, item.end, limits, whole=small)
            fetched_bytes = 0
            if not item.url.startswith("file:"):
                fetched_bytes = self._count_bytes(copy, header.spans)
            return _InputFacts(
                header.seconds, header.frames, fetched_bytes, header.width, header.height,
                header.segments,
            )  # fmt: skip

    def _count_bytes(self, copy: LocalCopy, spans: list[tuple[int, int]] | None) -> int:
        """Counts the bytes that are here, which a worker fetches first, and those planned next."""
        if spans is None:
            return copy.size_bytes
        todo = plan_ranges(spans, copy.present, copy.size_bytes, self._config)
        return copy.present.total_bytes + sum(end - start for start, end in todo)

    def _inspect_image(self, url: str) -> _InputFacts:
        with self._sources.open(url) as copy:
            here = url.startswith("file:")
            return _InputFacts(0.0, 1, 0 if here else copy.size_bytes)
