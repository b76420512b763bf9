"""HeaderProbe: opens each input of a request as a worker would, and reads no more than its header, or its frames.

Headers are parsed in a worker's decoding processes, since whoever names a video may have made it to take a parser over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from videoqa.bulk import ProbeResult
from videoqa.contract import Image, JobRequest, Sampling, Video
from videoqa.errors import SamplingError, SourceError
from videoqa_worker.cli.dry_run.preview import MOST_FETCHED_BYTES, MOST_SIDE, Preview, TooLarge
from videoqa_worker.cli.dry_run.tokens import InputShape, TokenCounter
from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.decoding.inputs import sample_input
from videoqa_worker.frames import no_check
from videoqa_worker.job.draft import attribute_errors
from videoqa_worker.job.frame_budget import assign_samplings, fill_sampling
from videoqa_worker.settings import WorkerSettings
from videoqa_worker.sources import LocalCopy, Sources, plan_ranges

__all__ = ["HeaderProbe", "InputFacts", "open_probe", "probe"]


@contextmanager
def probe(environ: Mapping[str, str]) -> Iterator[HeaderProbe]:
    """Opens a probe with a worker's settings, and with every file and address of this user allowed."""
    settings = WorkerSettings.from_environment(
        environ, file_roots=(Path("/"),), private_addresses=True
    )
    with open_probe(settings) as found:
        yield found


@contextmanager
def open_probe(settings: WorkerSettings) -> Iterator[HeaderProbe]:
    """Opens a probe that reads what a worker with these settings may read."""
    # A worker fetches small files whole; a dry run needs only their headers.
    config = settings.sources.model_copy(update={"download_below_bytes": 0})
    with (
        Sources(config, s3_endpoint_url=settings.s3_endpoint_url) as sources,
        Decoders.of(settings) as decoders,
    ):
        yield HeaderProbe(sources, decoders, settings)


@dataclass(frozen=True)
class InputFacts:
    """The facts that the header of one input gives."""

    seconds: float | None
    frames: int | None
    fetched_bytes: int
    width: int = 0
    height: int = 0
    segments: int = 1
    is_image: bool = False


class HeaderProbe:
    """Implements `videoqa.bulk.Probe`; thread-safe."""

    def __init__(self, sources: Sources, decoders: Decoders, settings: WorkerSettings) -> None:
        self._sources, self._decoders, self._settings = sources, decoders, settings
        self._config = settings.sources
        self._tokens = TokenCounter(settings)

    def load(self) -> None:
        """Starts the decoding processes and loads the model's processor, so that the first request need not wait."""
        self._decoders.start()
        self._tokens.stated_sampling(None)

    def inspect(self, request: JobRequest) -> ProbeResult:
        """Reads the headers of a request's inputs; raises SourceError or SamplingError as a worker does."""
        facts: list[InputFacts] = []
        for found in self.inspect_each(request):
            if not isinstance(found, InputFacts):
                raise found
            facts.append(found)
        known = all(one.seconds is not None for one in facts)
        return ProbeResult(
            known=known,
            seconds=sum(one.seconds or 0.0 for one in facts),
            frames=sum(one.frames or 0 for one in facts),
            fetched_bytes=sum(one.fetched_bytes for one in facts),
            prompt_tokens=self.count_tokens(request, facts) if known else None,
        )

    def inspect_each(
        self,
        request: JobRequest,
        check: Callable[[], None] = no_check,
        preview: Preview | None = None,
    ) -> Iterator[InputFacts | SourceError | SamplingError]:
        """Yields the facts about each input, or the error that a worker would meet.

        Arguments:
            check: may raise to end it.
            preview: gets the frames of the inputs, which are then decoded.
        """
        sampling = fill_sampling(request.sampling, self._tokens.stated_sampling(request.model))
        samplings = assign_samplings(sampling, request.inputs)
        for number, (item, share) in enumerate(zip(request.inputs, samplings, strict=True)):
            try:
                with attribute_errors(f"inputs.{number}.url"):
                    if isinstance(item, Video):
                        yield self._inspect_video(number, item, share, check, preview)
                    else:
                        yield self._inspect_image(number, item, share, check, preview)
            except (SourceError, SamplingError) as error:
                yield error

    def count_tokens(self, request: JobRequest, facts: Sequence[InputFacts]) -> int | None:
        """Returns the tokens of all prompts; None: the model is not here, or a header lacks the size."""
        shapes: list[InputShape] = [
            (
                "image" if one.is_image else "video",
                (one.frames or 0) // one.segments,
                one.width,
                one.height,
                None if one.seconds is None else one.seconds / one.segments,
            )
            for item, one in zip(request.inputs, facts, strict=True)
        ]
        if any(not (width and height) for _, _, width, height, _ in shapes):
            return None
        sampling = fill_sampling(request.sampling, self._tokens.stated_sampling(request.model))
        counts = [
            self._tokens.count(
                request.model, question.text, question.system or "", shapes, sampling
            )
            for question in request.full_questions
        ]
        known = [count for count in counts if count is not None]
        times = facts[0].segments if facts else 1
        return sum(known) * times if len(known) == len(counts) else None

    def _inspect_video(
        self,
        number: int,
        item: Video,
        sampling: Sampling,
        check: Callable[[], None],
        preview: Preview | None,
    ) -> InputFacts:
        with self._sources.open(item.url, check=check) as copy:
            small = copy.size_bytes <= self._config.download_below_bytes
            header = self._decoders.read_header(
                copy, sampling, start=item.start, end=item.end, whole=small, check=check
            )
            fetched_bytes = 0
            if not item.url.startswith("file:"):
                fetched_bytes = self._count_bytes(copy, header.spans)
            frames = header.frames
            if preview is not None:
                taken = self._take_frames(number, item, copy, sampling, check, preview)
                frames = frames if taken is None else taken
            return InputFacts(
                header.seconds, frames, fetched_bytes, header.width, header.height,
                header.segments, header.is_image,
            )  # fmt: skip

    def _count_bytes(self, copy: LocalCopy, spans: list[tuple[int, int]] | None) -> int:
        """Counts the bytes that are here, which a worker fetches first, and those planned next."""
        if spans is None:
            return copy.size_bytes
        todo = plan_ranges(spans, copy.present, copy.size_bytes, self._config)
        return copy.present.total_bytes + sum(end - start for start, end in todo)

    def _take_frames(
        self,
        number: int,
        item: Video,
        copy: LocalCopy,
        sampling: Sampling,
        check: Callable[[], None],
        preview: Preview,
    ) -> int | None:
        """Takes the frames that a job would take, as thumbnails; returns their number if these are all."""

        def check_size() -> None:
            check()
            if copy.fetched_bytes > MOST_FETCHED_BYTES:
                raise TooLarge

        clip = {"start": item.start, "end": item.end, "most_side": MOST_SIDE, "check": check_size}
        if sampling.method != "segment":
            video = self._decoders.sample(copy, sampling, **clip)  # type: ignore[arg-type]
            preview.add(number, video.frames, video.warnings)
            return len(video.frames)
        with closing(self._decoders.segments(copy, sampling, **clip)) as segments:  # type: ignore[arg-type]
            for segment in segments:
                preview.add(number, segment.video.frames, segment.video.warnings)
                if not preview.has_room(sampling.cap):
                    preview.complete = segment.number == segment.total - 1
                    break
        return None

    def _inspect_image(
        self,
        number: int,
        item: Image,
        sampling: Sampling,
        check: Callable[[], None],
        preview: Preview | None,
    ) -> InputFacts:
        with self._sources.open(item.url, check=check) as copy:
            fetched_bytes = 0 if item.url.startswith("file:") else copy.size_bytes
            small = copy.size_bytes <= self._config.download_below_bytes
            if item.guessed and (small or not fetched_bytes) and preview is None:
                header = self._decoders.read_header(copy, sampling, whole=True, check=check)
                if not header.is_image:
                    return InputFacts(
                        header.seconds, header.frames, fetched_bytes, header.width, header.height
                    )
            if preview is None:
                return InputFacts(0.0, 1, fetched_bytes, 0, 0, is_image=True)
            taken = sample_input(
                self._decoders, item, copy, sampling, most_side=MOST_SIDE, check=check
            )
            preview.add(number, taken.frames, taken.warnings)
            info = taken.info
            return InputFacts(
                info.duration_s or 0.0, len(taken.frames), fetched_bytes, info.width, info.height,
                is_image=info.is_image,
            )  # fmt: skip
