"""Pipeline: one attempt of one job, top to bottom: fetch, sample, prompt, generate.

Reads like the life of a job: `open` the inputs, then `answer` the questions about them. In between
the caller knows which bytes the inputs are, and may look for answers that exist already. Knows
sources, frames, prompts and the engine; nothing of Redis, Celery or leases: it reports its stages
and asks the job's control whether to go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from videoqa.contract import (
    Answer,
    GenerationInForce,
    Input,
    JobRequest,
    Sampling,
    Video,
    Warn,
    describe_refinement,
    describe_summary,
    redact_url,
)
from videoqa_worker.decoding.decoders import Decoders
from videoqa_worker.decoding.inputs import sample_input
from videoqa_worker.engine import Answering
from videoqa_worker.frames import SampledVideo
from videoqa_worker.job.answer_values import warn_of_values
from videoqa_worker.job.checkpoints import Checkpoints, NoCheckpoints
from videoqa_worker.job.context import AttemptContext, Progress
from videoqa_worker.job.draft import AttemptDraft, attribute_errors, convert_frames, warn_of_unused
from videoqa_worker.job.frame_budget import ProcessorDefaults, assign_samplings, fill_sampling
from videoqa_worker.job.questions import QuestionSession
from videoqa_worker.job.segments import Segments
from videoqa_worker.job.shared_frames import SharedFrames
from videoqa_worker.job.summary import SUMMARY_ID, list_notes, summarize
from videoqa_worker.job.text_stream import TextStream
from videoqa_worker.prompt import NO_LIMITS, PictureLimits, PreparedMedia
from videoqa_worker.shared_cache import Shared
from videoqa_worker.sources import LocalCopy, Sources, SourceVersion, identify_source

__all__ = ["OpenedJob", "Pipeline"]


@dataclass(frozen=True)
class _OpenedInput:
    """An input and its local copy."""

    number: int
    item: Input
    copy: LocalCopy
    sampling: Sampling


@dataclass
class OpenedJob:
    """A job whose inputs are open, so that their versions are known."""

    context: AttemptContext
    draft: AttemptDraft
    session: QuestionSession
    last: _OpenedInput
    """The last input; the frames of the others are taken already."""
    copies: ExitStack
    """Holds the local copy of the last input."""

    @property
    def sampling(self) -> Sampling:
        return self.draft.sampling

    @property
    def versions(self) -> Sequence[SourceVersion]:
        return self.draft.versions


class Pipeline:
    """Answers requests with one engine. Thread-safe: each thread carries one job."""

    def __init__(
        self,
        sources: Sources,
        decoders: Decoders,
        engine: Answering,
        *,
        model_without_texts: str | None = None,
        limits: PictureLimits = NO_LIMITS,
        shared_frames: SharedFrames | None = None,
    ) -> None:
        """
        Arguments:
            model_without_texts: name of a model that makes nothing of a prompt without pictures: its summaries and
                refined answers get a warning.
            limits: limits of a frame for jobs that state none.
            shared_frames: None: every job takes its frames itself.
        """
        self._limits = limits
        self._shared_frames = shared_frames or SharedFrames(is_on=False)
        self._model_without_texts = model_without_texts
        self._sources = sources
        self._decoders = decoders
        self._engine = engine

    @contextmanager
    def open(self, context: AttemptContext, *, own_batch: bool) -> Iterator[OpenedJob]:
        """Opens all inputs of a job; they are closed, and its questions stopped, when the block ends.

        A large file is fetched when its frames are taken. That happens here for all inputs but the
        last, since each local copy is gone before the next input is fetched.

        Arguments:
            own_batch: not batched with other jobs, so that a job that breaks its batch breaks only itself.
        """
        num_frames, fps = self._engine.stated_sampling
        draft = AttemptDraft(
            fill_sampling(
                context.request.sampling,
                ProcessorDefaults(
                    num_frames, fps, self._limits.max_pixels, self._limits.max_tokens
                ),
            ),
            GenerationInForce.of(context.request.generation, self._engine.stated_generation),
            tally=context.tally,
            warnings=[
                *self._engine.warnings,
                *warn_of_unused(context.request.generation),
            ],
        )
        with (
            QuestionSession(self._engine, context, own_batch=own_batch) as session,
            ExitStack() as copies,
        ):
            last = self._open_inputs(context, draft, copies)
            yield OpenedJob(context, draft, session, last, copies)

    def answer(self, job: OpenedJob, checkpoints: Checkpoints | None = None) -> AttemptDraft:
        """Answers every question of the request, or raises why it can't."""
        if job.context.request.sampling.method == "segment":
            self._answer_in_segments(job, checkpoints or NoCheckpoints())
        else:
            self._answer_at_once(job)
        answers = [
            *job.draft.answers,
            *(one for part in job.draft.segments for one in part.answers),
        ]
        job.draft.add_warnings(warn_of_values(job.context.request, answers))
        job.draft.add_warnings([*self._warn_of_texts(job.context.request)])
        return job.draft

    def _warn_of_texts(self, request: JobRequest) -> Iterator[Warn]:
        model = self._model_without_texts
        if model is None:
            return
        if request.summary is not None:
            yield describe_summary(model)
        if any(question.refine for question in request.full_questions):
            yield describe_refinement(model)

    # -- inputs

    def _open_inputs(
        self, context: AttemptContext, draft: AttemptDraft, copies: ExitStack
    ) -> _OpenedInput:
        inputs = context.request.inputs
        samplings = assign_samplings(draft.sampling, inputs)
        for n, (item, sampling) in enumerate(zip(inputs, samplings, strict=True)):
            with attribute_errors(f"inputs.{n}.url"):
                opened = _OpenedInput(
                    n, item, self._open_input(context, draft, n, copies), sampling
                )
                if n < len(inputs) - 1:
                    self._take_frames(context, draft, opened)
                    copies.close()
        return opened

    def _open_input(
        self, context: AttemptContext, draft: AttemptDraft, n: int, copies: ExitStack
    ) -> LocalCopy:
        """Finds out which bytes an input is; of a large file, only its beginning is fetched."""
        inputs, check = context.request.inputs, context.control.check
        url = inputs[n].url
        context.report(Progress("fetching", redact_url(url), done=n, total=len(inputs)))
        with draft.timing("fetching"), context.trace.stage("fetch") as found:
            copy = copies.enter_context(self._sources.open(url, check=check))
            found |= {"url.full": redact_url(url), "videoqa.bytes_fetched": copy.fetched_bytes}
        context.tally.note_copy(url, copy)
        draft.versions.append(identify_source(url, copy))
        return copy

    def _take_frames(
        self, context: AttemptContext, draft: AttemptDraft, opened: _OpenedInput
    ) -> None:
        """Takes an input's frames, and fetches what they need."""
        copy = opened.copy
        _report_sampling(context, opened)
        waited_s = copy.waited_s
        with draft.timing("sampling"), context.trace.stage("sample") as found:
            shared = self._sample(context, draft, opened)
            sampled = shared.value
            found |= {
                "videoqa.frames": len(sampled.frames),
                "videoqa.frames_shared": not shared.is_own,
                "videoqa.fetch_s": copy.waited_s - waited_s,
                "videoqa.bytes_fetched": copy.fetched_bytes,
            }
        draft.count_as_fetching(copy.waited_s - waited_s)
        media, used = convert_frames(opened.number, opened.item.kind, sampled, opened.sampling)
        draft.media.append(media)
        draft.frames.extend(used)
        draft.count_frames(used, is_own=shared.is_own)
        draft.note_warnings(opened.number, sampled.warnings)
        draft.note_source(opened.item, copy, sampled.info)

    def _sample(
        self, context: AttemptContext, draft: AttemptDraft, opened: _OpenedInput
    ) -> Shared[SampledVideo]:
        """Takes an input's frames, or gets those that another job takes or has just taken."""
        item, copy, sampling = opened.item, opened.copy, opened.sampling
        check = context.control.check
        return self._shared_frames.take(
            item,
            copy,
            draft.versions[opened.number],
            sampling,
            tenant=context.request.tenant,
            sample=lambda: sample_input(self._decoders, item, copy, sampling, check=check),
            check=check,
        )

    # -- questions

    def _answer_at_once(self, job: OpenedJob) -> None:
        """Asks all questions about all inputs."""
        with attribute_errors(f"inputs.{job.last.number}.url"):
            self._take_frames(job.context, job.draft, job.last)
            job.copies.close()
        with job.draft.timing("generating"):
            job.draft.answers = self._ask_questions(job)

    def _ask_questions(self, job: OpenedJob) -> tuple[Answer, ...]:
        """Returns the answers in the order of the questions, one for each."""
        questions, report = job.context.request.questions, job.context.report
        report(Progress("generating", done=0, total=len(questions)))
        stream = None
        if job.context.request.stream:
            stream = TextStream([question.id for question in questions], report)
        prepared = PreparedMedia(job.draft.media, job.context.control.check)
        job.draft.add_warnings(job.session.warn_of(job.draft.media))
        asked = job.session.ask_each(prepared, stream)
        job.context.sheet.add([pixels for item in job.draft.media for pixels in item.frames])
        job.context.sheet.start_writing()
        answers: list[Answer] = []
        for answer in job.session.answer_each(asked, stream):
            answers.append(answer)
            report(Progress("generating", done=len(answers), total=len(questions)))
        return tuple(answers)

    def _answer_in_segments(self, job: OpenedJob, checkpoints: Checkpoints) -> None:
        """Asks about the only video, a segment after the other, and then for a summary of all."""
        item = job.last.item
        assert isinstance(item, Video)  # noqa: S101 (the request's own check, for mypy)
        segments = Segments(job.context, job.draft, self._decoders, job.session, checkpoints)
        with attribute_errors("inputs.0.url"):
            _report_sampling(job.context, job.last)
            segments.ask(item, job.last.copy)
            job.copies.close()
        segments.finish()
        if job.context.request.summary is not None:
            with job.draft.timing("generating"):
                self._summarize(job, job.context.request.summary)

    def _summarize(self, job: OpenedJob, question: str) -> None:
        report = job.context.report
        report(Progress("generating", "the summary"))
        notes = list_notes(job.draft.segments)
        summary = summarize(
            question, notes, lambda prompt: job.session.ask_about_notes(prompt, question)
        )
        job.draft.answers = (summary,)
        if job.context.request.stream:
            report(Progress("generating", question_id=SUMMARY_ID, text=summary.text))


def _report_sampling(context: AttemptContext, opened: _OpenedInput) -> None:
    total = len(context.request.inputs)
    url = redact_url(opened.item.url)
    context.report(Progress("sampling", url, done=opened.number, total=total))
