"""Pipeline: one attempt of one job, top to bottom: fetch, sample, prompt, generate.

Reads like the life of a job. It knows sources, frames, prompts and the engine; it knows
nothing of Redis, Celery or leases: it reports its stages and asks `control` whether to go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from videoqa import errors
from videoqa.job import (
    Answer,
    FrameUsed,
    Image,
    Input,
    JobRequest,
    Sampling,
    SourceInfo,
    Usage,
    Video,
    Warn,
    redact_url,
)
from videoqa_worker.control import JobControl
from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.engine import Answering, Generated
from videoqa_worker.frames import SampledVideo
from videoqa_worker.pieces import Pieces
from videoqa_worker.prompt import Media, Viewed
from videoqa_worker.shares import Stated, resolved, shares
from videoqa_worker.source import LocalCopy, Sources

__all__ = ["Opened", "Outcome", "Pipeline", "Report", "SourceVersion"]

_PATIENCE_S = {"interactive": 0.0, "bulk": 30.0}
"""So long interactive jobs that came later may run before a bulk job of the same worker."""


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
    ) -> None: ...


@dataclass(frozen=True)
class SourceVersion:
    """Which bytes an input is, before any of them is decoded."""

    url: str
    """Without credentials and query."""
    etag: str | None
    version_id: str | None
    size_bytes: int

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
    frames: list[FrameUsed] = field(default_factory=list)
    sources: list[SourceInfo] = field(default_factory=list)
    warnings: list[Warn] = field(default_factory=list)
    media: list[Media] = field(default_factory=list)
    versions: list[SourceVersion] = field(default_factory=list)
    bytes_fetched: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timing(self, stage: errors.Stage) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - begun

    def count_as_fetching(self, seconds: float) -> None:
        """So much of the last sampling was spent waiting for bytes."""
        self.seconds["sampling"] -= seconds
        self.seconds["fetching"] += seconds

    def usage(self, queued_s: float) -> Usage:
        return Usage(
            input_tokens=sum(answer.input_tokens for answer in self.answers),
            output_tokens=sum(answer.output_tokens for answer in self.answers),
            frames=len(self.frames),
            bytes_fetched=self.bytes_fetched,
            queued_s=round(queued_s, 4),
            fetching_s=round(self.seconds.get("fetching", 0.0), 4),
            sampling_s=round(self.seconds.get("sampling", 0.0), 4),
            generating_s=round(self.seconds.get("generating", 0.0), 4),
        )


class Pipeline:
    """Answers requests with one engine. Thread-safe: each thread carries one job."""

    def __init__(self, sources: Sources, decoders: Decoders, engine: Answering) -> None:
        self._sources = sources
        self._decoders = decoders
        self._engine = engine

    def run(
        self,
        request: JobRequest,
        control: JobControl,
        report: Report,
        *,
        alone: bool,
        opened: Opened = lambda sampling, versions: None,
    ) -> Outcome:
        """Answers every question of the request, or raises why it can't.

        `alone`: not batched with other jobs, so that a job that breaks its batch breaks only itself.
        """
        num_frames, fps = self._engine.stated_sampling
        outcome = Outcome(resolved(request.sampling, Stated(num_frames, fps)))
        videos = sum(isinstance(item, Video) for item in request.inputs)
        share = shares(outcome.sampling, videos)
        for n, item in enumerate(request.inputs):
            sampling = next(share) if isinstance(item, Video) else None
            # Each local copy is gone before the next input is fetched.
            with _about(f"inputs.{n}.url"), ExitStack() as spooled:
                self._take(n, request, sampling, outcome, control, report, spooled, opened)
        with outcome.timing("generating"):
            self._generate(request, outcome, control, report, alone)
        return outcome

    def _take(
        self,
        n: int,
        request: JobRequest,
        sampling: Sampling | None,
        outcome: Outcome,
        control: JobControl,
        report: Report,
        spooled: ExitStack,
        opened: Opened,
    ) -> None:
        """Fetches one input and takes its frames; of a large file, only what they need."""
        item, total = request.inputs[n], len(request.inputs)
        report("fetching", message=redact_url(item.url), done=n, total=total)
        with outcome.timing("fetching"):
            copy = spooled.enter_context(self._sources.open(item.url, check=control.check))
        outcome.versions.append(_version(item, copy))
        if len(outcome.versions) == total:
            opened(outcome.sampling, outcome.versions)
        report("sampling", message=redact_url(item.url), done=n, total=total)
        waited_s = copy.waited_s
        with outcome.timing("sampling"):
            sampled = self._sample(item, copy, sampling, control)
        outcome.count_as_fetching(copy.waited_s - waited_s)
        _note(n, item, copy, sampled, outcome)

    def _sample(
        self, item: Input, copy: LocalCopy, sampling: Sampling | None, control: JobControl
    ) -> SampledVideo:
        if sampling is None or isinstance(item, Image):
            return self._decoders.read_image(copy, check=control.check)
        return self._decoders.sample(
            copy, sampling, start=item.start, end=item.end, check=control.check
        )

    def _generate(
        self,
        request: JobRequest,
        outcome: Outcome,
        control: JobControl,
        report: Report,
        alone: bool,
    ) -> None:
        total = len(request.questions)
        report("generating", done=0, total=total)
        abandoned = False

        def should_stop() -> bool:
            return abandoned or control.stopped()

        pieces = Pieces([q.id for q in request.questions], report) if request.stream else None
        viewed = Viewed(outcome.media)
        pending: list[Future[Generated]] = []
        try:
            for n, question in enumerate(request.questions):
                control.check()
                with _about(f"questions.{n}.text"):
                    pending.append(
                        self._engine.ask(
                            viewed,
                            question.text,
                            request.generation,
                            should_stop=should_stop,
                            alone=alone,
                            patience_s=_PATIENCE_S[request.priority],
                            on_text=pieces.taker(question.id) if pieces else None,
                        )
                    )
            outcome.answers = tuple(self._collect(request, pending, pieces, control, report))
        finally:
            abandoned = True

    def _collect(
        self,
        request: JobRequest,
        pending: Sequence[Future[Generated]],
        pieces: Pieces | None,
        control: JobControl,
        report: Report,
    ) -> Iterator[Answer]:
        """The answers in the order of the questions, one for each."""
        for n, (question, future) in enumerate(zip(request.questions, pending, strict=True)):
            with _about(f"questions.{n}.text"):
                try:
                    generated = _awaited(future, pieces, control)
                except errors.JobCanceled:
                    control.check()  # the engine only knows that it should stop, this knows why
                    raise
            if pieces is not None:
                pieces.report()
            report("generating", done=n + 1, total=len(pending))
            yield Answer(
                question_id=question.id,
                question=question.text,
                text=generated.text,
                finish_reason=generated.finish_reason,
                input_tokens=generated.input_tokens,
                output_tokens=generated.output_tokens,
                first_token_s=round(generated.first_token_s, 4),
            )


def _awaited(future: Future[Generated], pieces: Pieces | None, control: JobControl) -> Generated:
    """The engine ends a stopped row itself; this thread is free even if the engine hangs."""
    while True:
        try:
            return future.result(timeout=pieces.due_in_s() if pieces else 1)
        except TimeoutError:
            control.check()
            if pieces is not None:
                pieces.report()


@contextmanager
def _about(param: str) -> Iterator[None]:
    """Errors inside are about this part of the request, unless they say otherwise."""
    try:
        yield
    except (errors.SourceError, errors.SamplingError, errors.GenerationError) as error:
        error.param = error.param or param
        raise


def _version(item: Input, copy: LocalCopy) -> SourceVersion:
    return SourceVersion(redact_url(item.url), copy.etag, copy.version_id, copy.size_bytes)


def _note(n: int, item: Input, copy: LocalCopy, sampled: SampledVideo, outcome: Outcome) -> None:
    """Keeps what the result says of an input: which bytes, which frames."""
    outcome.bytes_fetched += copy.fetched_bytes
    outcome.media.append(
        Media(
            kind=item.kind,
            frames=tuple(frame.pixels for frame in sampled.frames),
            pts_s=tuple(frame.pts_s for frame in sampled.frames),
        )
    )
    outcome.frames.extend(
        FrameUsed(
            input=n,
            index=frame.index,
            pts_s=round(frame.pts_s, 6),
            asked_s=round(frame.asked_s, 6),
            exact=frame.exact,
        )
        for frame in sampled.frames
    )
    outcome.warnings.extend(
        warning.model_copy(update={"param": f"inputs.{n}"}) for warning in sampled.warnings
    )
    info = sampled.info
    outcome.sources.append(
        SourceInfo(
            url=redact_url(item.url),
            kind=item.kind,
            size_bytes=copy.size_bytes,
            etag=copy.etag,
            version_id=copy.version_id,
            duration_s=info.duration_s if isinstance(item, Video) else None,
            fps=info.fps if isinstance(item, Video) else None,
            width=info.width,
            height=info.height,
            codec=info.codec,
            format=info.format,
        )
    )
