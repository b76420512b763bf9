"""Pipeline: one attempt of one job, top to bottom: fetch, sample, prompt, generate.

Reads like the life of a job. It knows sources, frames, prompts and the engine; it knows
nothing of Redis, Celery or leases: it reports its stages and asks `control` whether to go on.
"""

from __future__ import annotations

from contextlib import ExitStack

from videoqa.contract import Answer, Image, Input, JobRequest, Sampling, Video, redact_url
from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.engine import Answering
from videoqa_worker.frames import SampledVideo
from videoqa_worker.job.cancellation import JobControl
from videoqa_worker.job.draft import Opened, Outcome, Report, about, seen, version_of
from videoqa_worker.job.frame_budget import Stated, resolved, shares
from videoqa_worker.job.questions import Asking
from videoqa_worker.job.segments import Checkpoints, NoCheckpoints, Segments
from videoqa_worker.job.summary import SUMMARY_ID, notes_of, summarized
from videoqa_worker.job.text_stream import Pieces
from videoqa_worker.prompt import PreparedMedia
from videoqa_worker.sources import LocalCopy, Sources

__all__ = ["Pipeline"]


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
        checkpoints: Checkpoints | None = None,
    ) -> Outcome:
        """Answers every question of the request, or raises why it can't.

        `alone`: not batched with other jobs, so that a job that breaks its batch breaks only itself.
        """
        num_frames, fps = self._engine.stated_sampling
        outcome = Outcome(resolved(request.sampling, Stated(num_frames, fps)))
        with Asking(self._engine, request, control, alone=alone) as asking:
            attempt = _Attempt(
                request, outcome, control, report, opened, asking, self._sources, self._decoders
            )
            if request.sampling.method == "segment":
                attempt.in_segments(checkpoints or NoCheckpoints())
            else:
                attempt.at_once()
        return outcome


class _Attempt:
    """What the steps of one attempt share."""

    def __init__(
        self,
        request: JobRequest,
        outcome: Outcome,
        control: JobControl,
        report: Report,
        opened: Opened,
        asking: Asking,
        sources: Sources,
        decoders: Decoders,
    ) -> None:
        self._request, self._outcome = request, outcome
        self._control, self._report, self._opened = control, report, opened
        self._asking, self._sources, self._decoders = asking, sources, decoders

    def at_once(self) -> None:
        """All inputs, then all questions about them."""
        videos = sum(isinstance(item, Video) for item in self._request.inputs)
        share = shares(self._outcome.sampling, videos)
        for n, item in enumerate(self._request.inputs):
            sampling = next(share) if isinstance(item, Video) else None
            # Each local copy is gone before the next input is fetched.
            with about(f"inputs.{n}.url"), ExitStack() as spooled:
                self._take(n, item, self._open(n, item, spooled), sampling)
        with self._outcome.timing("generating"):
            self._generate()

    def in_segments(self, checkpoints: Checkpoints) -> None:
        """The only video, a segment after the other; then what all of them say together."""
        (item,) = self._request.inputs
        assert isinstance(item, Video)  # noqa: S101 (the request's own check, for mypy)
        segments = Segments(
            self._request, self._outcome, self._decoders, self._asking,
            self._control, self._report, checkpoints,
        )  # fmt: skip
        with about("inputs.0.url"), ExitStack() as spooled:
            copy = self._open(0, item, spooled)
            segments.run(item, copy, self._outcome.sampling)
        segments.finish()
        if self._request.summary is not None:
            with self._outcome.timing("generating"):
                self._summarize(self._request.summary)

    def _open(self, n: int, item: Input, spooled: ExitStack) -> LocalCopy:
        """Finds out which bytes an input is; of a large file, only its beginning is fetched."""
        total = len(self._request.inputs)
        self._report("fetching", message=redact_url(item.url), done=n, total=total)
        with self._outcome.timing("fetching"):
            copy = spooled.enter_context(self._sources.open(item.url, check=self._control.check))
        self._outcome.versions.append(version_of(item, copy))
        if len(self._outcome.versions) == total:
            self._opened(self._outcome.sampling, self._outcome.versions)
        self._report("sampling", message=redact_url(item.url), done=n, total=total)
        return copy

    def _take(self, n: int, item: Input, copy: LocalCopy, sampling: Sampling | None) -> None:
        """Takes an input's frames, and fetches what they need."""
        waited_s = copy.waited_s
        with self._outcome.timing("sampling"):
            sampled = self._sample(item, copy, sampling)
        self._outcome.count_as_fetching(copy.waited_s - waited_s)
        media, used = seen(n, item.kind, sampled)
        self._outcome.media.append(media)
        self._outcome.frames.extend(used)
        self._outcome.note_warnings(n, sampled.warnings)
        self._outcome.note_source(item, copy, sampled.info)

    def _sample(self, item: Input, copy: LocalCopy, sampling: Sampling | None) -> SampledVideo:
        check = self._control.check
        if sampling is None or isinstance(item, Image):
            return self._decoders.read_image(copy, check=check)
        return self._decoders.sample(copy, sampling, start=item.start, end=item.end, check=check)

    def _generate(self) -> None:
        """The answers in the order of the questions, one for each."""
        questions = self._request.questions
        self._report("generating", done=0, total=len(questions))
        pieces = None
        if self._request.stream:
            pieces = Pieces([question.id for question in questions], self._report)
        prepared = PreparedMedia(self._outcome.media)
        pending = [
            self._asking.ask(
                prepared,
                question.text,
                f"questions.{n}.text",
                on_text=pieces.taker(question.id) if pieces else None,
            )
            for n, question in enumerate(questions)
        ]
        answers = []
        for n, (question, future) in enumerate(zip(questions, pending, strict=True)):
            param = f"questions.{n}.text"
            answers.append(self._asking.answer(future, question.id, question.text, param, pieces))
            self._report("generating", done=n + 1, total=len(questions))
        self._outcome.answers = tuple(answers)

    def _summarize(self, question: str) -> None:
        self._report("generating", message="the summary")

        def ask(prompt: str) -> Answer:
            asked = self._asking.ask((), prompt, "summary")
            return self._asking.answer(asked, SUMMARY_ID, question, "summary")

        summary = summarized(question, notes_of(self._outcome.segments), ask)
        self._outcome.answers = (summary,)
        if self._request.stream:
            self._report("generating", question_id=SUMMARY_ID, text=summary.text)
